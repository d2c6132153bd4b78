"""What the gate finds of an operation: ratios turn by turn, with a bound that assumes nothing about the noise."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from ..measure import PAUSE, Figure, Plan, measure, quantile
from ..processes import ProviderError, ProviderProcess
from .operations import Operation

NOTHING = np.zeros((1, 0, 0, 0), np.float32)  # an operation makes its own input
Open: TypeAlias = Callable[[str], AbstractContextManager[ProviderProcess]]  # a new process with that operation


TOLERANCE = 0.05  # share by which an operation may be slower
TURNS, FEWEST = 15, 7  # of each side in a first series; and where a call takes long, within BUDGET
PAIRS, TURNS_AGAIN = 3, 11  # of new processes that measure a suspect again, and the turns of each
LEAST, BUDGET = 0.025, 12.0  # seconds of a turn, for which short calls are repeated, and of a series


@dataclass(frozen=True)
class Series:
    """Seconds of the working tree over those of the base, a ratio a turn."""

    ratios: tuple[float, ...]

    @property
    def median(self) -> float:
        return quantile(self.ratios, 0.5)

    def low(self, doubt: float) -> float:
        """What the true median exceeds, but for a chance of `doubt` (sign test)."""
        return sorted(self.ratios)[self._rank(doubt)]

    def high(self, doubt: float) -> float:
        """What the true median lies below, but for a chance of `doubt`."""
        return sorted(self.ratios, reverse=True)[self._rank(doubt)]

    def _rank(self, doubt: float) -> int:
        """The last place in order, from 0, that lies above the true median with a chance of `doubt` at most."""
        n, below, rank = len(self.ratios), 0.0, -1
        while below <= doubt:
            rank += 1
            below += math.comb(n, rank) / 2**n
        if rank == 0:
            raise ValueError(f"{n} turns are too few to leave a doubt of only {doubt}")
        return rank - 1


def confirmed(again: Sequence[Series], tolerance: float, doubt: float = 0.01) -> bool:
    """Whether all turns of a second measurement say slower, and each pair of processes by itself does.

    Where memory happens to lie makes a process slower or faster for as long as it lives; another pair's lies elsewhere.
    """
    together = Series(tuple(ratio for series in again for ratio in series.ratios))
    return together.low(doubt) > 1 + tolerance and all(series.median > 1 + tolerance for series in again)


@dataclass(frozen=True)
class Verdict:
    """One operation.

    Attributes:
        status: `same`, `faster`, `slower` (beyond noise and tolerance, also when measured again), `differs` (the
            outputs disagree), `fails` (in the working tree), `new` or `not comparable` (the base lacks it or fails).
        series: the first series, if there was one.
        again: those of the second measurement, each of new processes; none if the first left no suspicion.
        distance: of the outputs, relative.
        reason: of a status without a series.
        seconds: medians of a call, base and working tree, in the first series.
    """

    operation: str
    status: str
    series: Series | None = None
    again: tuple[Series, ...] = ()
    distance: float | None = None
    reason: str | None = None
    seconds: tuple[float, float] | None = None

    @property
    def failed(self) -> bool:
        return self.status in ("slower", "differs", "fails")


def gate(
    base: Open,
    tree: Open,
    operations: Sequence[Operation],
    tolerance: float = TOLERANCE,
    tell: Callable[[Verdict], None] = lambda _: None,
    pause: float = PAUSE,
) -> list[Verdict]:
    """A verdict for each operation; `tell` hears of each first series, in which `slower` is only a suspicion yet."""

    def compared(operation: Operation, turns: int) -> Verdict:
        return _compared(base, tree, operation, turns, tolerance, pause)

    found = {}
    for operation in operations:
        found[operation] = compared(operation, TURNS)
        tell(found[operation])
    for operation, verdict in found.items():
        if verdict.status == "slower":
            found[operation] = _settled(verdict, [compared(operation, TURNS_AGAIN) for _ in range(PAIRS)], tolerance)
    return list(found.values())


def _settled(verdict: Verdict, again: Sequence[Verdict], tolerance: float) -> Verdict:
    """A suspect's verdict after several new pairs of processes."""
    if broken := next((each for each in again if each.series is None), None):
        return replace(verdict, status="fails", reason=broken.reason)
    series = tuple(each.series for each in again if each.series)
    return replace(verdict, status="slower" if confirmed(series, tolerance) else "same", again=series)


def _compared(base: Open, tree: Open, operation: Operation, turns: int, tolerance: float, pause: float) -> Verdict:
    """One series of an operation, each side in a new process, after their outputs agreed."""
    verdict, pair = Verdict(operation.name, "fails"), []
    with ExitStack() as stack:
        for side, status in ((tree, "fails"), (base, "not comparable")):
            try:
                process = stack.enter_context(side(operation.name))
                features = process.forward(NOTHING, answer=True).features  # warms up
                pair.append((process, features, process.forward().seconds[0]))
            except ProviderError as error:
                status = "new" if error.lacks and side is base else status
                return replace(verdict, status=status, reason=f"lacks it: {error}" if error.lacks else str(error))
        (after, _, last), (before, truth, first) = pair
        assert truth is not None
        calls = max(1, math.ceil(LEAST / max(1e-9, min(first, last))))
        fitting = int(BUDGET / (calls * (first + last) + 2 * pause))
        plan = Plan(min(turns, max(FEWEST, fitting)), math.inf, calls, pause)
        figures = measure([before, after], NOTHING, truth, plan, images=slice(None), allowed=operation.allowed)
    return _judged(replace(verdict, distance=figures[1].error), figures, operation.allowed, tolerance)


def _judged(verdict: Verdict, figures: Sequence[Figure], allowed: float, tolerance: float) -> Verdict:
    base, tree = figures
    if base.refused:
        return replace(verdict, status="not comparable", reason=base.refused)
    if tree.refused:
        wrong = tree.error is not None and not tree.error <= allowed
        return replace(verdict, status="differs" if wrong else "fails", reason=tree.refused)
    series = Series(tuple(after / before for before, after in zip(base.seconds, tree.seconds, strict=True)))
    status = "slower" if series.low(0.05) > 1 + tolerance else "same"
    if series.high(0.05) < 1 / (1 + tolerance):
        status = "faster"
    return replace(verdict, status=status, series=series, seconds=(base.median, tree.median))
