"""The command: choose cases, verify all of them, then time what is right, tell."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from gem_fast.bench.machine import machine, machine_line
from gem_fast.kernels.attention.triton import why_not
from gem_fast.kernels.attention.triton.tiles import FAMILIES, device_of
from rich.console import Console

from gem_fast.terminal import say
from gem_fast.tile_tuning import processes_for

from .attention import attention_cases
from .cases import Case
from .decoding import decoding_cases
from .first_use import first_use_cases
from .forward import forward_cases
from .graphs import graph_cases
from .normalization import layer_norm_cases
from .report import print_table, write_json
from .run import Rules, Timing, run
from .timing import Turns, times_on_gpu
from .verify import ON_A_GPU, first_line

KINDS = ("bfloat16", "float16", "float32", "tf32")
KERNELS = (
    "first_use", "self_self", "layouts", "any_norm", "pairs", "layer_norm", "add_layer_norm", "labels", "heatmaps",
    "forward", "graphs", "gem_tiny",
)  # fmt: skip


def all_cases(device: torch.device, quick: bool) -> Iterable[Case]:
    """Every kernel in every type; TF32 where there is one, for what has matrix products."""
    kinds, has_tf32 = KINDS[:3], FAMILIES.get(device_of(device).arch) in ("mma", "wgmma", "tcgen05")
    products = KINDS if has_tf32 else kinds
    yield from first_use_cases(products)
    yield from attention_cases(products, quick)
    yield from layer_norm_cases(kinds, quick)
    yield from decoding_cases(kinds, quick)
    yield from forward_cases(products, quick)
    yield from graph_cases(kinds)


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
    parser.add_argument("--processes", type=int, help="to verify in (default: by cores and the GPU's memory)")
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
    timing = Timing(lambda calls: times_on_gpu(calls, device, turns), started + chosen.within)
    rules = Rules(device, 20, ON_A_GPU, chosen.processes or processes_for(device))
    return check_all(cases, rules, None if chosen.no_times else timing, chosen.json, console, tell)


def check_all(
    cases: Sequence[Case],
    rules: Rules,
    timing: Timing | None,
    file: Path,
    console: Console,
    tell: Callable[[str], None],
) -> int:
    """Check the cases, print the table, write the file as they come; returns the exit status."""
    facts, command = machine(), shlex.join(sys.argv)
    say(machine_line(facts), to=console)
    found = run(cases, rules, timing, tell, lambda so_far: write_json(file, so_far, facts, command))
    print_table(found, console)
    bad = sum(each.bad for each in found)
    verdict = f"{bad} of {sum(each.check.ours for each in found)} checks of kernels are wrong or failed"
    say(f"{verdict}; written to {file}", to=console)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
