"""Times of several ways to compute the same, in turns, with the cache emptied before each call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from .cases import Call
from .verify import first_line

Clock: TypeAlias = Callable[[Call], float]  # seconds of one call
_CACHE = 256 * 2**20  # bytes, more than any L2 cache


@dataclass(frozen=True)
class Turns:
    """How many turns each has: what fits the budget of all together, within bounds.

    Attributes:
        budget: seconds of the calls themselves.
    """

    budget: float = 1.0
    least: int = 7
    most: int = 50

    def count(self, seconds_a_turn: float) -> int:
        return int(min(max(self.budget / max(seconds_a_turn, 1e-9), self.least), self.most))


def gpu_clock(device: torch.device) -> Clock:
    """Seconds between two events on the device around a call, after overwriting its L2 cache, as in `do_bench`.

    Overwriting takes longer than to launch a few kernels, so that the launches are ready when it ends.
    """
    cache = torch.empty(_CACHE, dtype=torch.int8, device=device)

    def clock(call: Call) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        cache.zero_()
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return clock


def in_turns(calls: Mapping[str, Call], clock: Clock, turns: Turns | None = None) -> dict[str, tuple[float, ...] | str]:
    """Seconds of each call, a value a turn; who begins changes from turn to turn. For one that raises, the reason.

    Two calls of each go before: the first may compile, the second tells how many turns there is time for.
    """
    seconds: dict[str, Any] = {name: [] for name in calls}
    failed: dict[str, str] = {}

    def take(name: str) -> float | None:
        try:
            return clock(calls[name])
        except Exception as error:  # out of memory with others beside it, or a device that gave up
            failed[name] = first_line(error)
            return None

    estimates = [[take(name), take(name) if name not in failed else None][1] for name in calls]
    rounds = (turns or Turns()).count(sum(estimate for estimate in estimates if estimate is not None))
    names = list(calls)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            if name not in failed and (taken := take(name)) is not None:
                seconds[name].append(taken)
    return {name: failed.get(name) or tuple(seconds[name]) for name in calls}
