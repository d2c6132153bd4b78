"""Cases verified, in processes beside each other, then what is right timed, alone."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TypeAlias

import torch
from gem_fast.kernels.attention.triton.tile_trials import arithmetic

from .cases import Call, Case
from .report import Found
from .timing import Timed
from .verify import FAILED, RIGHT, SKIPPED, Check, Way, first_line, verify

Timer: TypeAlias = Callable[[Mapping[str, Call]], dict[str, Timed]]
Checked: TypeAlias = tuple[list[Found], bool]  # what was found of a case, and whether the device is lost since


@dataclass(frozen=True)
class Rules:
    """How cases are verified on a device: `verify`'s repeats and ways, in how many processes; 1 is this one."""

    device: torch.device
    repeats: int
    ways: Mapping[str, Way]
    processes: int = 1


@dataclass(frozen=True)
class Timing:
    """The timer, and the reading of `time.monotonic` from which on it is asked for nothing more."""

    timer: Timer
    until: float = math.inf


def run(
    cases: Sequence[Case],
    rules: Rules,
    timing: Timing | None,
    tell: Callable[[str], None],
    keep: Callable[[list[Found]], None],
) -> list[Found]:
    """Verify the cases, then time them in turn, the last first; `keep` is called with all that was found after each.

    After one that took the device down, those that have not begun are told as not run.
    """
    found: dict[int, list[Found]] = {}
    lost = ""

    def so_far() -> list[Found]:
        return [each for index in sorted(found) for each in found[index]]

    for index, (checks, is_lost) in verified(cases, rules):
        found[index] = checks
        tell(f"{cases[index]}: " + ", ".join(f"{each.check.provider} {each.check.verdict}" for each in checks))
        keep(so_far())
        if is_lost:
            lost = str(cases[index])
            break
    for index in set(range(len(cases))) - set(found):
        found[index] = _failed(cases[index], f"not run: the device was lost in {lost}")
    if timing and not lost:
        for index in reversed(range(len(cases))):  # hundreds of the attention's come first, and the engine's last
            if time.monotonic() >= timing.until:
                tell(f"the first {index + 1} cases are verified but not timed: --within is over")
                break
            found[index] = timed(found[index], rules.device, timing.timer)
            if index and index % 16 == 0:  # writing takes longer than timing where there are hundreds
                keep(so_far())
    keep(so_far())
    return so_far()


def verified(cases: Sequence[Case], rules: Rules) -> Iterator[tuple[int, Checked]]:
    """What was found of each case, after its place, as they end; what had no room beside others is checked again."""
    crowded: list[int] = []
    if rules.processes > 1:
        yield from _beside(cases, rules, crowded)
    for index in crowded if rules.processes > 1 else range(len(cases)):
        yield index, check(cases[index], rules)


def _beside(cases: Sequence[Case], rules: Rules, crowded: list[int]) -> Iterator[tuple[int, Checked]]:
    """In processes beside each other, the last, which take longest, begun first; `crowded` gets what had no room."""
    begin = rules.device, max(1, torch.get_num_threads() // rules.processes)
    with ProcessPoolExecutor(rules.processes, get_context("spawn"), _begin, begin) as pool:
        begun = {pool.submit(check, cases[index], rules): index for index in reversed(range(len(cases)))}
        try:
            for ended in as_completed(begun):
                index = begun[ended]
                try:
                    checked = ended.result()
                except BrokenProcessPool:
                    checked = _failed(cases[index], "its process ended"), True
                if any("OutOfMemoryError" in each.check.reason for each in checked[0]):
                    crowded.append(index)
                else:
                    yield index, checked
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(device: torch.device, threads: int) -> None:
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)


def check(case: Case, rules: Rules) -> Checked:
    """Verify a case."""
    with arithmetic(case.kind), torch.inference_mode():
        try:
            checks = verify(case.build(rules.device), rules.repeats, rules.ways)
        except torch.OutOfMemoryError as error:  # float64 needs more than the card has
            checks = [Check("all", True, SKIPPED, f"no reference: {first_line(error)}")]
        except Exception as error:  # Triton can't serve it here, for one
            checks = [Check("all", True, FAILED, first_line(error))]
    return [Found(case, each) for each in checks], any(each.reason for each in checks) and not _answers(rules.device)


def _failed(case: Case, reason: str) -> list[Found]:
    return [Found(case, Check("all", True, FAILED, reason))]


def _answers(device: torch.device) -> bool:
    """An illegal access, for one, leaves a process without its GPU."""
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError:
        return False
    return True


def timed(found: list[Found], device: torch.device, timer: Timer) -> list[Found]:
    """The checks of one case, with the times of what is right."""
    case, right = found[0].case, [each.check.provider for each in found if each.check.verdict == RIGHT]
    if not right or not case.timed:
        return found
    with arithmetic(case.kind), torch.inference_mode():
        try:
            problem = case.build(device)
            calls = problem.ours | problem.rivals
            times = timer({name: calls[name] for name in right})
        except Exception as error:  # out of memory with others beside it
            times = dict.fromkeys(right, Timed(note=first_line(error)))
    return [replace(each, times=times.get(each.check.provider, each.times)) for each in found]
