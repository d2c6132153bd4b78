"""Numbers that callers give. Needs no torch."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any


def number(name: str, value: Any, right: str, fits: Callable[[Any], bool]) -> Any:
    """A number as Python's own: one of any library, arrays and tensors without dimensions among them.

    Raises:
        ValueError: it is no single number, or does not fit; the message says what is `right`.
    """
    plain = value.item() if getattr(value, "ndim", None) == 0 else value
    if not isinstance(plain, Real) or not fits(plain):
        raise ValueError(f"{name} must be {right}, got {value!r}")
    return plain


def count(name: str, value: Any) -> int:
    """A whole number of things, 1 or more; ValueError if it is none."""
    found: int = number(name, value, "1 or more, a whole number", lambda x: isinstance(x, Integral) and int(x) >= 1)
    return found
