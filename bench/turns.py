"""Functions timed in turns by pytest-benchmark: how a suite holds named providers side by side."""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import memory
from .ceiling import ceiling
from .records import Row, derived

machine_ceiling = functools.cache(ceiling)  # this machine's rates, measured once a run


@dataclass(frozen=True)
class Work:
    """What one call of each provider has to do, for the rates that follow from its time.

    Attributes:
        flops, traffic: operations and least bytes; 0 where they say nothing.
        images: in a call; 0 where it is about none.
        dtype: whose ceiling the rates are held against, where there are operations or bytes.
    """

    flops: float = 0.0
    traffic: float = 0.0
    images: int = 0
    dtype: str = "float32"


def take_turns(
    benchmark: Any,
    providers: Mapping[str, Callable[[], Any]],
    rounds: int,
    work: Work | Mapping[str, Work] | None = None,
    added_mb: Mapping[str, float | None] | None = None,
) -> dict[str, Row]:
    """Time the first provider and its rivals in turns: rivals, first, rivals, first…

    The first one's rounds are pytest-benchmark's own; the rivals' and what follows from them go into `extra_info`, out
    of which `records.read_rows` makes rows of their own.

    Args:
        benchmark: pytest-benchmark's fixture, not used before.
        providers: functions that were found to give the same; the first is the one that the benchmark is about.
        rounds: turns of each. A single one, for what takes minutes, goes without warm-up.
        work: of a call, the same for all or by provider.
        added_mb: what a call adds to its process's peak memory, by provider, None where that is not known; of those
            that are not named it is measured here, in a call after a first one.

    Returns:
        A row for each provider, rivals first.
    """
    own, *rivals = providers
    added = dict(added_mb or {})
    if rounds > 1:
        added |= {name: _warm(function) for name, function in providers.items() if name not in added}
    seconds: dict[str, list[float]] = {name: [] for name in rivals}

    def time_rivals() -> None:
        for name in rivals:
            start = time.perf_counter()
            providers[name]()
            seconds[name].append(time.perf_counter() - start)

    benchmark.pedantic(providers[own], setup=time_rivals, rounds=rounds, iterations=1)
    seconds[own] = list(benchmark.stats.stats.data)
    rows = {}
    for name, measured in seconds.items():
        of = (work.get(name) if isinstance(work, Mapping) else work) or Work()
        rates = machine_ceiling(of.dtype) if of.flops or of.traffic else {}
        extra = {"added_mb": added.get(name), **derived(measured, of.flops, of.traffic, rates)}
        row = Row(f"{benchmark.fullname} {name}", benchmark.fullname, tuple(measured), {"provider": name}, extra)
        if of.images:
            extra["images_per_second"] = of.images / row.at(0.5)
        rows[name] = row
    told = {name: {"seconds": list(row.seconds), **row.extra} for name, row in rows.items() if name != own}
    benchmark.extra_info.update(provider=own, rivals=told, **rows[own].extra)
    return rows


def _warm(function: Callable[[], Any]) -> float | None:
    """Call it twice; MB that the second call adds at its peak."""
    function()
    return memory.peak_growth(function)
