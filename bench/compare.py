"""Two runs of the same benchmarks: what became slower or faster beyond the noise."""

from collections.abc import Sequence
from dataclasses import dataclass

from .measure import quantile
from .records import Row, by_group


@dataclass(frozen=True)
class Change:
    """One benchmark in two runs.

    Attributes:
        name: of the benchmark.
        ratio: seconds of the second run over those of the first, of their medians.
        low, high: the same of the quantiles that make it smallest and largest: 20% of one over 80% of the other.
        tolerance: what counts as no change, whatever the quantiles say.
    """

    name: str
    ratio: float
    low: float
    high: float
    tolerance: float

    @property
    def verdict(self) -> str:
        """`slower` or `faster` if all of the range is beyond the tolerance, else `same`."""
        if self.low > 1 + self.tolerance:
            return "slower"
        return "faster" if self.high < 1 / (1 + self.tolerance) else "same"


def compare(
    before: Sequence[Row], after: Sequence[Row], *, tolerance: float = 0.05, relative_to: str | None = None
) -> list[Change]:
    """Changes of the benchmarks that both runs have.

    Args:
        tolerance: smallest share that counts as a change.
        relative_to: a provider, such as `sdpa float32`, or `first` for the first of each case: times are divided by
            its time in the same turn of the same case, so that a machine that is slower as a whole changes nothing.
            None compares seconds.

    Raises:
        ValueError: the runs have nothing in common, or nothing of the provider.
    """
    values = [_values(rows, relative_to) for rows in (before, after)]
    shared = [name for name in values[0] if name in values[1]]
    if not shared and relative_to:
        known = sorted({row.provider for row in before} & {row.provider for row in after})
        raise ValueError(
            f"the two runs have no benchmark beside {relative_to!r} in common; providers in both: {', '.join(known)}"
        )
    if not shared:
        examples = " and ".join(repr(rows[0].name) if rows else "none" for rows in (before, after))
        raise ValueError(f"the two runs have no benchmark in common; their first are {examples}")
    return [_change(name, values[0][name], values[1][name], tolerance) for name in shared]


def _values(rows: Sequence[Row], relative_to: str | None) -> dict[str, list[float]]:
    """What is compared, by name: seconds, or ratios of seconds with their base in the name."""
    if relative_to is None:
        return {row.name: list(row.seconds) for row in rows}
    values = {}
    for members in by_group(rows).values():
        bases = [row for row in members if relative_to in ("first", row.provider)][:1]
        for base in bases:
            for row in members:
                if row is not base:
                    name = f"{row.name} / {base.provider}"
                    values[name] = [a / b for a, b in zip(row.seconds, base.seconds, strict=False)]
    return values


def _change(name: str, before: list[float], after: list[float], tolerance: float) -> Change:
    low, middle, high = (quantile(after, share) / quantile(before, 1 - share) for share in (0.2, 0.5, 0.8))
    return Change(name, middle, low, high, tolerance)
