"""Operations of two sides measured in turns, and measured again before one is called slower."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from ..measure import PAUSE, distance, quantile
from ..processes import ProviderError
from .operations import Operation
from .verdict import Series, Verdict, confirmed, suspected


@dataclass(frozen=True)
class Prepared:
    """An operation set up on a side: seconds of a call and its result, or what the side lacks."""

    seconds: float = 0.0
    result: np.ndarray | None = None
    missing: str | None = None


class Side(Protocol):
    """The base or the working tree; ProviderError where an operation fails."""

    def prepare(self, operation: str) -> Prepared: ...
    def time(self, calls: int) -> float: ...


Pair: TypeAlias = "tuple[Side, Side]"  # base and working tree


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        tolerance: share by which an operation may be slower.
        turns: of each side in a first series.
        pairs: pairs of new processes that measure a suspect again.
        turns_again: of each side in each of those.
        least: seconds that a turn takes at the least; short calls are repeated.
        budget: seconds for a series, after which it has no further turns but the `fewest`.
        fewest: turns that a series has at the least.
        pause: seconds before each turn, in which the threads of the other side go to sleep.
    """

    tolerance: float = 0.05
    turns: int = 15
    pairs: int = 3
    turns_again: int = 11
    least: float = 0.025
    budget: float = 12.0
    fewest: int = 7
    pause: float = PAUSE

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ValueError(f"tolerance must be 0 or more, got {self.tolerance}")


def gate(
    open_pair: Callable[[], AbstractContextManager[Pair]],
    operations: Sequence[Operation],
    plan: Plan,
    tell: Callable[[Verdict], None] = lambda _: None,
) -> list[Verdict]:
    """A verdict for each operation; `open_pair` starts new processes, `tell` hears of each first series."""
    verdicts = []
    with open_pair() as pair:
        for operation in operations:
            verdicts.append(_first(pair, operation, plan))
            tell(verdicts[-1])
    suspects = [
        operation for operation, verdict in zip(operations, verdicts, strict=True) if verdict.status == "slower"
    ]
    again, broken = _again(open_pair, suspects, plan)
    return [
        replace(verdict, status="fails", reason=broken[verdict.operation])
        if verdict.operation in broken
        else _settled(verdict, again.get(verdict.operation, []), plan)
        for verdict in verdicts
    ]


def _again(
    open_pair: Callable[[], AbstractContextManager[Pair]], suspects: Sequence[Operation], plan: Plan
) -> tuple[dict[str, list[Series]], dict[str, str]]:
    """Series of the suspects in each of several new pairs, and the reasons of those that failed in one."""
    again: dict[str, list[Series]] = {operation.name: [] for operation in suspects}
    broken: dict[str, str] = {}
    for _ in range(plan.pairs):
        rest = [operation for operation in suspects if operation.name not in broken]
        while rest:  # the process of one that failed may be gone: those after it get a new pair
            with open_pair() as pair:
                while rest:
                    operation = rest.pop(0)
                    try:
                        prepared = [side.prepare(operation.name) for side in pair]
                        again[operation.name].append(_series(pair, prepared, plan, plan.turns_again)[0])
                    except ProviderError as error:
                        broken[operation.name] = str(error)
                        break
    return again, broken


def _settled(verdict: Verdict, again: list[Series], plan: Plan) -> Verdict:
    if not again:
        return verdict
    return replace(verdict, again=tuple(again), status="slower" if confirmed(again, plan.tolerance) else "same")


def _first(pair: Pair, operation: Operation, plan: Plan) -> Verdict:
    """The first series of an operation, after its outputs agreed; `slower` is only a suspicion yet."""
    base, tree = pair
    try:
        after = tree.prepare(operation.name)
    except ProviderError as error:
        return Verdict(operation.name, "fails", reason=str(error))
    try:
        before = base.prepare(operation.name)
    except ProviderError as error:
        return Verdict(operation.name, "not comparable", reason=str(error))
    if after.missing:
        return Verdict(operation.name, "fails", reason=f"the working tree lacks it: {after.missing}")
    if before.missing:
        return Verdict(operation.name, "new", reason=f"the base lacks it: {before.missing}")
    assert before.result is not None
    assert after.result is not None
    off = distance(after.result, before.result)
    if not off <= operation.allowed:
        reason = f"outputs are {off:.1e} apart, and {operation.allowed:.0e} is allowed"
        return Verdict(operation.name, "differs", distance=off, reason=reason)
    try:
        series, seconds = _series(pair, [before, after], plan, plan.turns)
    except ProviderError as error:
        return Verdict(operation.name, "fails", distance=off, reason=str(error))
    status = "slower" if suspected(series, plan.tolerance) else "same"
    if series.high(0.05) < 1 / (1 + plan.tolerance):
        status = "faster"
    return Verdict(operation.name, status, series, distance=off, seconds=seconds)


def _series(pair: Pair, prepared: Sequence[Prepared], plan: Plan, turns: int) -> tuple[Series, tuple[float, float]]:
    """Ratios turn by turn, the sides changing who goes first; and the median seconds of a call of each."""
    calls = max(1, math.ceil(plan.least / max(1e-9, min(each.seconds for each in prepared))))
    turn = calls * sum(each.seconds for each in prepared) + 2 * plan.pause
    taken: tuple[list[float], list[float]] = ([], [])
    for i in range(min(turns, max(plan.fewest, int(plan.budget / turn)))):
        for side in ((0, 1), (1, 0))[i % 2]:
            time.sleep(plan.pause)
            taken[side].append(pair[side].time(calls))
    ratios = tuple(after / before for before, after in zip(*taken, strict=True))
    return Series(ratios), (quantile(taken[0], 0.5), quantile(taken[1], 0.5))
