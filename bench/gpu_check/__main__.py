"""The command: choose cases, verify all of them, then time what is right, tell."""

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch
from gem_fast.bench.machine import machine, machine_line
from gem_fast.kernels.attention.triton import why_not
from gem_fast.kernels.attention.triton.tile_trials import arithmetic
from gem_fast.kernels.attention.triton.tiles import FAMILIES, device_of
from rich.console import Console

from gem_fast.terminal import say

from .attention import attention_cases
from .cases import Call, Case
from .decoding import decoding_cases
from .first_use import first_use_cases
from .forward import forward_cases
from .graphs import graph_cases
from .normalization import layer_norm_cases
from .report import Found, print_table, write_json
from .timing import Timed, Turns, times_on_gpu
from .verify import FAILED, ON_A_GPU, RIGHT, SKIPPED, Check, Way, first_line, verify

KINDS = ("bfloat16", "float16", "float32", "tf32")
KERNELS = (
    "first_use", "self_self", "layouts", "any_norm", "pairs", "layer_norm", "add_layer_norm", "labels", "heatmaps",
    "forward", "graphs", "gem_tiny",
)  # fmt: skip
Timer: TypeAlias = Callable[[Mapping[str, Call]], dict[str, Timed]]


@dataclass(frozen=True)
class Rules:
    """How cases are checked on a device: `verify`'s repeats and ways, and the timer, or None for no times, with the
    reading of `time.monotonic` from which on it is asked for nothing more."""

    device: torch.device
    repeats: int
    ways: Mapping[str, Way]
    timer: Timer | None
    until: float = math.inf


def all_cases(device: torch.device, quick: bool) -> Iterable[Case]:
    """Every kernel in every type; TF32 where there is one, for what has matrix products."""
    kinds, has_tf32 = KINDS[:3], FAMILIES.get(device_of(device).arch) in ("mma", "wgmma", "tcgen05")
    products = KINDS if has_tf32 else kinds
    yield from first_use_cases(kinds)
    yield from attention_cases(products, quick)
    yield from layer_norm_cases(kinds, quick)
    yield from decoding_cases(kinds, quick)
    yield from forward_cases(products, quick)
    yield from graph_cases(kinds)


def check(case: Case, rules: Rules) -> list[Found]:
    """Verify a case."""
    with arithmetic(case.kind), torch.inference_mode():
        try:
            checks = verify(case.build(rules.device), rules.repeats, rules.ways)
        except torch.OutOfMemoryError as error:  # float64 needs more than the card has
            return [Found(case, Check("all", True, SKIPPED, f"no reference: {first_line(error)}"))]
        except Exception as error:  # Triton can't serve it here, for one
            return [Found(case, Check("all", True, FAILED, first_line(error)))]
        return [Found(case, each) for each in checks]


def timed(found: Sequence[Found], rules: Rules, timer: Timer) -> list[Found]:
    """The checks of one case, with the times of what is right."""
    case, right = found[0].case, [each.check.provider for each in found if each.check.verdict == RIGHT]
    if not right or not case.timed:
        return list(found)
    with arithmetic(case.kind), torch.inference_mode():
        try:
            problem = case.build(rules.device)
            calls = problem.ours | problem.rivals
            times = timer({name: calls[name] for name in right})
        except Exception as error:  # out of memory with others beside it
            times = dict.fromkeys(right, Timed(note=first_line(error)))
    return [replace(each, times=times.get(each.check.provider, each.times)) for each in found]


def run(
    cases: Iterable[Case], rules: Rules, tell: Callable[[str], None], keep: Callable[[list[Found]], None]
) -> list[Found]:
    """Verify the cases in turn, then time them, the last first; `keep` is called with all that was found after each.

    After one that took the device down, the others are told as not run.
    """
    found: list[list[Found]] = []
    lost = ""

    def so_far() -> list[Found]:
        return [each for of_case in found for each in of_case]

    for case in cases:
        if lost:
            found.append([Found(case, Check("all", True, FAILED, f"not run: the device was lost in {lost}"))])
            continue
        found.append(check(case, rules))
        tell(f"{case}: " + ", ".join(f"{each.check.provider} {each.check.verdict}" for each in found[-1]))
        if any(each.reason for each in found[-1]) and not _answers(rules.device):
            lost = str(case)
        keep(so_far())
    if rules.timer and not lost:
        for index in reversed(range(len(found))):  # hundreds of the attention's come first, and the engine's last
            if time.monotonic() >= rules.until:
                tell(f"the first {index + 1} cases are verified but not timed: --within is over")
                break
            found[index] = timed(found[index], rules, rules.timer)
            if index and index % 16 == 0:  # writing takes longer than timing where there are hundreds
                keep(so_far())
        keep(so_far())
    return so_far()


def _answers(device: torch.device) -> bool:
    """An illegal access, for one, leaves a process without its GPU."""
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError:
        return False
    return True


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m gem_fast.bench.gpu_check",
        description="Verify every Triton kernel in every type on this GPU against float64: in fenced memory, with "
        "equal bits in twenty runs, on another stream and as a replayed graph. What is right is then timed against "
        "sdpa and eager code, in turns, as replayed graphs.",
        epilog="Right is an error of at most twice that of plain torch in the same type. "
        "Exit status: 0 all right, 1 a kernel is wrong or fails, 2 nothing could be checked.",
    )
    parser.add_argument("--quick", action="store_true", help="a few shapes of each kernel")
    parser.add_argument("--only", action="append", choices=KERNELS, help="only this kernel; repeatable")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this arithmetic; repeatable")
    parser.add_argument("--no-times", action="store_true", help="verify alone")
    parser.add_argument(
        "--within", type=float, metavar="SECONDS", help="then time nothing more (570; with --quick 165)"
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 (%(default)s)")
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), help="file to write (%(default)s)")
    chosen = parser.parse_args(given)
    if chosen.json.is_dir():
        parser.error(f"--json: {chosen.json} is a folder; name a file")
    if chosen.within is None:
        chosen.within = 165 if chosen.quick else 570
    return chosen


def why_no_gpu(name: str) -> str | None:
    """Why nothing can be checked on the device of that name."""
    try:
        device = torch.device(name)
        if device.type != "cuda":
            return f"gpu_check needs a CUDA or ROCm device, and {name} is none"
        torch.cuda.init()  # tells what is_available() doesn't, such as a driver that is too old
        torch.cuda.set_device(device.index or 0)
    except (RuntimeError, AssertionError) as error:
        return f"gpu_check needs a CUDA or ROCm device: {first_line(error)}"
    reason = why_not(torch.empty(1, 1, 3, 1, 64, dtype=torch.float16, device=device))
    return f"gpu_check: Triton can't serve this GPU: {reason}" if reason else None


def main(given: Sequence[str] | None = None) -> int:
    """Check the GPU at hand; returns the exit status."""
    started, chosen, console, progress = time.monotonic(), arguments(given), Console(), Console(stderr=True)

    def tell(text: str) -> None:
        say(text, to=progress)

    reason = why_no_gpu(chosen.device)
    if reason:
        tell(reason)
        return 2
    device = torch.device(chosen.device)
    kernels, kinds = chosen.only or KERNELS, chosen.kind or KINDS
    found = all_cases(device, chosen.quick)
    cases = [case for case in found if case.kernel in kernels and case.kind in kinds]
    turns = Turns(budget=0.05) if chosen.quick else Turns()
    timer = None if chosen.no_times else lambda calls: times_on_gpu(calls, device, turns)
    rules = Rules(device, 20, ON_A_GPU, timer, started + chosen.within)
    return check_all(cases, rules, chosen.json, console, tell)


def check_all(cases: Sequence[Case], rules: Rules, file: Path, console: Console, tell: Callable[[str], None]) -> int:
    """Check the cases, print the table, write the file as they come; returns the exit status."""
    facts, command = machine(), shlex.join(sys.argv)
    say(machine_line(facts), to=console)
    found = run(cases, rules, tell, lambda so_far: write_json(file, so_far, facts, command))
    print_table(found, console)
    bad = sum(each.bad for each in found)
    verdict = f"{bad} of {sum(each.check.ours for each in found)} checks of kernels are wrong or failed"
    say(f"{verdict}; written to {file}", to=console)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
