"""What a series of paired turns says: a bound of its median that assumes nothing about the noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from ..measure import quantile


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
            below += comb(n, rank) / 2**n
        if rank == 0:
            raise ValueError(f"{n} turns are too few to leave a doubt of only {doubt}")
        return rank - 1


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


def suspected(series: Series, tolerance: float, doubt: float = 0.05) -> bool:
    """Whether a first series calls for another."""
    return series.low(doubt) > 1 + tolerance


def confirmed(again: Sequence[Series], tolerance: float, doubt: float = 0.01) -> bool:
    """Whether all turns of a second measurement say slower, and each pair of processes by itself does.

    Where memory happens to lie makes a process slower or faster for as long as it lives; another pair's lies elsewhere.
    """
    together = Series(tuple(ratio for series in again for ratio in series.ratios))
    return together.low(doubt) > 1 + tolerance and all(series.median > 1 + tolerance for series in again)
