"""Which backend an operation takes: the one asked for by name, else the first in its order that serves and pays.

An operation declares its backends beside its entry, a row each, so one more is a row there and a file of its own.
`sdpa` is in every operation: plain torch, which serves everything.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from . import first_use

VARIABLE = "GEM_FAST_BACKEND"
PLAIN = "sdpa"
EVERYWHERE = ("reference", PLAIN)  # names that every operation takes, for plain torch where it has nothing of the name


Trust: TypeAlias = "Callable[[Operation, Backend, Tensor], bool]"


def _serves_all(*arguments: Any) -> None:
    return None


def _always(*arguments: Any) -> bool:
    return True


@dataclass(frozen=True)
class Backend:
    """One way to compute an operation. Each function takes the operation's arguments, by position.

    Attributes:
        name: what callers ask for it by, the same in every operation.
        run: computes the operation.
        why_not: the reason why `run` can't serve these arguments, or None.
        pays: whether it is the one to take if it serves and none is asked for.
        trials: arguments of small calls in a type on a GPU, with which it is held against plain torch before it is
            taken there unasked; None for what needs none.
        multiplies: whether it takes matrix products, which of float32 may be in TF32.
    """

    name: str
    run: Callable[..., Any]
    why_not: Callable[..., str | None] = _serves_all
    pays: Callable[..., bool] = _always
    trials: Callable[[torch.dtype, torch.device], Iterable[tuple[Any, ...]]] | None = None
    multiplies: bool = False


def _outputs(result: Any) -> list[Tensor]:
    return [each for each in (result if isinstance(result, tuple) else (result,)) if each is not None]


@dataclass(frozen=True)
class Operation:
    """An operation and its backends, in order of preference.

    Attributes:
        name: of its entry in `gem_fast.kernels`.
        backends: one is called `sdpa`, and the last serves everything and always pays.
        example: arguments of a typical call in a type on a device, to tell what would run there.
        outputs: the tensors of a result, of the same shapes from every backend.
    """

    name: str
    backends: tuple[Backend, ...]
    example: Callable[[torch.dtype, torch.device], tuple]
    outputs: Callable[[Any], list[Tensor]] = _outputs

    def choose(self, asked: str | None, *arguments: Any, trust: Trust = first_use.confirmed) -> Backend:
        """The backend that `asked` names, else `GEM_FAST_BACKEND`, else the first that serves, pays and is right here.

        `trust` says the last of one with trials: by trying it, or with `first_use.not_known_wrong` without.

        Raises:
            ValueError: the one asked for does not exist, or can't serve these arguments; the message says why.
        """
        name = asked or os.environ.get(VARIABLE)
        if not name:
            return next(row for row in self.backends if self._serves_unasked(row, arguments, trust))
        own = {row.name: row for row in self.backends}
        if name not in own:
            check_name(name, "" if asked else f" in {VARIABLE}")
        found = own.get(name, own[PLAIN])  # what it lacks is plain torch's, and never another fast backend's
        reason = found.why_not(*arguments)
        if reason:
            raise ValueError(f"{self.name}: the backend {name!r} can't serve: {reason}")
        return found

    def _serves_unasked(self, row: Backend, arguments: tuple[Any, ...], trust: Trust) -> bool:
        if row.why_not(*arguments) is not None or not row.pays(*arguments):
            return False
        return row.trials is None or trust(self, row, arguments[0])

    def __call__(self, asked: str | None, *arguments: Any) -> Any:
        """What the chosen backend computes."""
        return self.choose(asked, *arguments).run(*arguments)


# Filled as the operations' modules are imported, which `gem_fast.kernels` does.
OPERATIONS: dict[str, Operation] = {}


def operation(
    name: str,
    *backends: Backend,
    example: Callable[[torch.dtype, torch.device], tuple[Any, ...]],
    outputs: Callable[[Any], list[Tensor]] = _outputs,
) -> Operation:
    """Declare an operation: a row for each backend, in order of preference."""
    OPERATIONS[name] = Operation(name, backends, example, outputs)
    return OPERATIONS[name]


def names() -> tuple[str, ...]:
    """All names that a backend can be asked for by, in any operation."""
    own = [row.name for each in OPERATIONS.values() for row in each.backends]
    return tuple(dict.fromkeys((*EVERYWHERE, *own)))


def check_name(name: str, origin: str = "") -> None:
    """Raise ValueError unless some operation has a backend of that name; the message lists them."""
    if name not in names():
        raise ValueError(f"unknown backend {name!r}{origin}; the backends are {', '.join(names())}")
