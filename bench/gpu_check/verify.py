"""Whether results are right: an error of at most twice that of plain torch in the same type, the rule of the tests."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .cases import Call, Outputs, Problem
from .fences import Fences
from .replay import beside, replay_of

RIGHT, WRONG, FAILED, SKIPPED = "right", "WRONG", "failed", "skipped"
ALLOWANCE = 2.0
Way = Callable[[Call], Call]  # of making the same call
ON_A_GPU: Mapping[str, Way] = {"on another stream": beside, "as a replayed graph": replay_of}


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
        verdict: `right`, `WRONG`, `failed`, or `skipped` where there is no reference; only what is right is timed.
        reason: why not.
        errors, allowed: by output.
        first_seconds: of the first call, compiling included.
    """

    provider: str
    ours: bool
    verdict: str
    reason: str = ""
    errors: dict[str, Error] = field(default_factory=dict)
    allowed: dict[str, Error] = field(default_factory=dict)
    first_seconds: float | None = None


def verify(problem: Problem, repeats: int = 1, ways: Mapping[str, Way] | None = None) -> list[Check]:
    """Check each variant and each rival; one that raises is told, and the rest goes on.

    Args:
        problem: what to check.
        repeats: further runs of each variant, whose bits must be those of the first: else it has a race.
        ways: to make the same call otherwise, by what is told of one that gives other bits.
    """
    truth = problem.truth()
    allowed = {name: allowance(error_of(plain, truth[name])) for name, plain in problem.plain().items()}
    again = {"run again": lambda call: call} if repeats else {}
    others = dict(ways or {}) if problem.otherwise else {}
    manners: dict[str, tuple[Way, int]] = {name: (way, repeats) for name, way in (again | others).items()}
    return [
        _check(problem, name, call, truth, allowed, manners)
        if ours
        else _check_rival(problem, name, call, truth, allowed)
        for ours, calls in ((True, problem.ours), (False, problem.rivals))
        for name, call in calls.items()
    ]


def _check(
    problem: Problem,
    name: str,
    call: Call,
    truth: Outputs,
    allowed: dict[str, Error],
    manners: dict[str, tuple[Way, int]],
) -> Check:
    fences = Fences()
    started = time.perf_counter()
    try:
        with fences:
            results = call()
        first, kept = time.perf_counter() - started, [each.clone() for each in _tensors(results)]
        judged = replace(_judged(name, True, problem.outputs(results), truth, allowed), first_seconds=first)
        if judged.verdict != RIGHT:
            return judged
        if fences.broken():
            return replace(judged, verdict=WRONG, reason="memory past an end was written")
        reason = next((why for manner in manners.items() if (why := _why_other(call, kept, *manner))), "")
        return replace(judged, verdict=WRONG, reason=reason) if reason else judged
    except Exception as error:  # a kernel may fail in the compiler or on the device, in many ways
        return Check(name, True, FAILED, first_line(error))


def _check_rival(problem: Problem, name: str, call: Call, truth: Outputs, allowed: dict[str, Error]) -> Check:
    try:
        return _judged(name, False, problem.outputs(call()), truth, allowed)
    except Exception as error:  # likewise
        return Check(name, False, FAILED, first_line(error))


def _judged(name: str, ours: bool, outputs: Outputs, truth: Outputs, allowed: dict[str, Error]) -> Check:
    errors = {output: error_of(result, truth[output]) for output, result in outputs.items()}
    wrong = [why for output in truth if (why := _why_wrong(output, errors.get(output), allowed[output]))]
    return Check(name, ours, WRONG if wrong else RIGHT, "; ".join(wrong), errors, allowed)


def _tensors(results: Any) -> list[Tensor]:
    return [each for each in tree_leaves(results) if isinstance(each, Tensor)]


def _why_other(call: Call, kept: list[Tensor], manner: str, how: tuple[Way, int]) -> str | None:
    """What is told of a call that, made another way, gives other bits."""
    way, repeats = how
    try:
        other = way(call)
        for _ in range(repeats):
            found = _tensors(other())
            if len(found) != len(kept) or not all(map(torch.equal, found, kept)):
                return f"{manner}, it gives other bits"
    except Exception as error:  # what can't be captured, for one
        return f"{manner}: {first_line(error)}"
    return None


def error_of(result: Tensor, truth: Tensor) -> Error:
    """Infinite for a result of another shape or that is not finite."""
    if result.shape != truth.shape or not torch.isfinite(result).all():
        return Error(float("inf"), float("inf"))
    rows, exact = ((each.double() ** 2).sum(-1) for each in (result.double() - truth, truth))
    scale = exact.mean().sqrt().item() or 1.0
    return Error(rows.mean().sqrt().item() / scale, rows.max().sqrt().item() / scale)


def allowance(plain: Error) -> Error:
    if plain.worst == float("inf"):
        raise ValueError("plain torch's result is not finite, so nothing tells what is allowed")
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
