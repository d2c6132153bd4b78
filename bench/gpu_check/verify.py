"""Whether results are right: an error of at most twice that of plain torch in the same type, the rule of the tests."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .cases import Call, Outputs, Problem

RIGHT, WRONG, FAILED = "right", "WRONG", "failed"
ALLOWANCE = 2.0


@dataclass(frozen=True)
class Error:
    """How far a result is from float64, as a share of the root mean square of float64's rows (absolute where that is
    0): the root mean square over all rows, and the worst row, in which one bad tile of many shows."""

    mean: float
    worst: float


FLOOR = Error(1e-6, 1e-5)  # errors that are never too large


@dataclass(frozen=True)
class Check:
    """What was found of one way to compute a case.

    Attributes:
        provider: the variant of the kernel, or the rival.
        ours: whether it is what this command is to verify.
        verdict: `right`, `WRONG` or `failed`; only what is right is timed.
        reason: why not.
        errors, allowed: by output.
    """

    provider: str
    ours: bool
    verdict: str
    reason: str = ""
    errors: dict[str, Error] = field(default_factory=dict)
    allowed: dict[str, Error] = field(default_factory=dict)


def verify(problem: Problem) -> list[Check]:
    """Check each variant and each rival; one that raises is told, and the rest goes on."""
    truth = problem.truth()
    allowed = {name: allowance(error_of(plain, truth[name])) for name, plain in problem.plain().items()}
    return [
        _check(problem, name, call, truth, allowed, ours)
        for ours, calls in ((True, problem.ours), (False, problem.rivals))
        for name, call in calls.items()
    ]


def _check(problem: Problem, name: str, call: Call, truth: Outputs, allowed: dict[str, Error], ours: bool) -> Check:
    try:
        outputs = problem.outputs(poisoned(call) if ours else call())
        errors = {output: error_of(result, truth[output]) for output, result in outputs.items()}
    except Exception as error:  # a kernel may fail in the compiler or on the device, in many ways
        return Check(name, ours, FAILED, first_line(error))
    wrong = [why for output in truth if (why := _why_wrong(output, errors.get(output), allowed[output]))]
    return Check(name, ours, WRONG if wrong else RIGHT, "; ".join(wrong), errors, allowed)


def error_of(result: Tensor, truth: Tensor) -> Error:
    """Infinite for a result of another shape or that is not finite."""
    if result.shape != truth.shape or not torch.isfinite(result).all():
        return Error(float("inf"), float("inf"))
    rows, exact = ((each.double() ** 2).sum(-1) for each in (result.double() - truth, truth))
    scale = exact.mean().sqrt().item() or 1.0
    return Error(rows.mean().sqrt().item() / scale, rows.max().sqrt().item() / scale)


def allowance(plain: Error) -> Error:
    return Error(max(ALLOWANCE * plain.mean, FLOOR.mean), max(ALLOWANCE * plain.worst, FLOOR.worst))


def _why_wrong(output: str, error: Error | None, allowed: Error) -> str | None:
    if error is None:
        return f"{output} is missing"
    if error.mean == float("inf"):
        return f"{output} is not finite or has another shape"
    for name, found, bound in (("off", error.mean, allowed.mean), ("off in the worst row", error.worst, allowed.worst)):
        if not found <= bound:
            return f"{output} is {name} by {found:.1e}, and {bound:.1e} is allowed"
    return None


def first_line(error: BaseException) -> str:
    told = str(error).strip().splitlines()
    return f"{type(error).__name__}: {told[0]}" if told else type(error).__name__


def poisoned(call: Callable[[], Any]) -> Any:
    """Call with all new memory full of NaN, or of the largest integer: an element that is never written shows."""
    with _filled_memory():
        return call()


@contextmanager
def _filled_memory() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills it too, see torch.utils.deterministic
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that some operation of torch is not deterministic
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
