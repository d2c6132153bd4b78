"""Cases of what a first use tries on a device: it has to find every kernel right."""

import functools
from collections.abc import Iterator

import torch
from gem_fast.kernels.attention.triton.tile_trials import DTYPES
from gem_fast.kernels.backends import OPERATIONS
from gem_fast.kernels.first_use import why_wrong
from torch import Tensor

from .cases import Call, Case, Problem


def first_use_cases(kinds: tuple[str, ...]) -> Iterator[Case]:
    for kind in kinds:
        yield Case("first_use", "its trials", kind, functools.partial(first_use_problem, kind), timed=False)


def first_use_problem(kind: str, device: torch.device) -> Problem:
    """Each operation's verdict; the reason of one that is not right is raised."""

    def verdict(name: str) -> Tensor:
        for row in OPERATIONS[name].backends:
            if row.trials and (reason := why_wrong(OPERATIONS[name], row, DTYPES[kind], device)):
                raise RuntimeError(reason)
        return torch.zeros(1, 1)

    zero = {"out": torch.zeros(1, 1, dtype=torch.float64)}
    ours: dict[str, Call] = {name: functools.partial(verdict, name) for name in OPERATIONS}
    return Problem(ours, {}, lambda: zero, lambda: zero, otherwise=False)
