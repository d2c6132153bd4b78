"""Numbers that callers give. Needs no torch."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any


def number(name: str, value: Any, right: str, fits: Callable[[Any], bool]) -> Any:
    """A number as Python's own: one of any library, arrays and tensors without dimensions among them; no boolean.

    Raises:
        ValueError: it is no single number, or does not fit; the message says what is `right`.
    """
    plain = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(plain, bool) or not isinstance(plain, Real) or not fits(plain):
        raise ValueError(f"{name} must be {right}, got {value!r}")
    return plain


def whole(name: str, value: Any, least: int) -> int:
    """A whole number from `least` on; ValueError if it is none."""
    right = f"{least} or more, a whole number"
    found: int = number(name, value, right, lambda x: isinstance(x, Integral) and x >= least)  # type: ignore[operator]
    return found
