"""Times of several ways to compute the same, in turns, with the cache emptied before each call."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from .cases import Call
from .replay import replay_of
from .verify import first_line

Clock: TypeAlias = Callable[[Call], float]  # seconds of one call
_CACHE = 256 * 2**20  # bytes, more than any L2 cache


@dataclass(frozen=True)
class Turns:
    """How many turns each has: what fits the budget of all together, within bounds.

    Attributes:
        budget: seconds of the calls themselves.
    """

    budget: float = 0.2
    least: int = 7
    most: int = 50

    def count(self, seconds_a_turn: float) -> int:
        return int(min(max(self.budget / max(seconds_a_turn, 1e-9), self.least), self.most))


@dataclass(frozen=True)
class Timed:
    """Seconds a turn of a call on the device; of the host, which only queues it; and what there is to know of both."""

    seconds: tuple[float, ...] = ()
    host_seconds: float | None = None
    note: str = ""


def gpu_clock(device: torch.device) -> Clock:
    """Seconds between two events on the device around a call, after overwriting its L2 cache, as in `do_bench`."""
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


def times_on_gpu(calls: Mapping[str, Call], device: torch.device, turns: Turns | None = None) -> dict[str, Timed]:
    """Times of each call as the replay of a graph: launching would be most of what is short.

    One that can't be captured is timed as it is, and its note says why.
    """
    replays, notes = dict(calls), dict.fromkeys(calls, "")
    for name, call in calls.items():
        try:
            replays[name] = replay_of(call)
        except Exception as error:  # it waits for the device, or allocates on the host
            notes[name] = f"timed with its launches: {first_line(error)}"
    times = in_turns(replays, gpu_clock(device), turns)
    return {name: told(times[name], notes[name], host_seconds(calls[name])) for name in calls}


def told(times: tuple[float, ...] | str, note: str = "", host: float | None = None) -> Timed:
    return Timed(note=times) if isinstance(times, str) else Timed(times, host, note)


def host_seconds(call: Call, calls: int = 20) -> float:
    """Median seconds of the host to queue a call on an idle device."""
    taken = []
    for _ in range(calls):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[calls // 2]


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
