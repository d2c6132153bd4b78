"""The command: choose cases, check and time each, tell."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from gem_fast.bench.machine import machine, machine_line
from gem_fast.kernels.attention.triton import why_not
from gem_fast.kernels.attention.triton.launch import device_of
from gem_fast.kernels.attention.triton.tile_trials import arithmetic
from gem_fast.kernels.attention.triton.tiles import FAMILIES
from rich.console import Console

from gem_fast.terminal import say

from .attention import attention_cases
from .cases import Case
from .decoding import decoding_cases
from .forward import forward_cases
from .normalization import layer_norm_cases
from .report import Found, print_table, write_json
from .timing import Clock, gpu_clock, in_turns
from .verify import FAILED, RIGHT, Check, first_line, verify

KERNELS = ("self_self", "any_norm", "pairs", "layer_norm", "temperature", "labels", "heatmaps", "forward", "gem_tiny")


def all_cases(device: torch.device, quick: bool) -> Iterable[Case]:
    """Every kernel in every type; TF32 where there is one, for what has matrix products."""
    kinds = ("bfloat16", "float16", "float32")
    has_tf32 = FAMILIES.get(device_of(device).arch) in ("mma", "wgmma", "tcgen05")
    products = (*kinds, "tf32") if has_tf32 else kinds
    yield from attention_cases(products, quick)
    yield from layer_norm_cases(kinds, quick)
    yield from decoding_cases(kinds, quick)
    yield from forward_cases(products, quick)


def check(case: Case, device: torch.device, clock: Clock | None) -> list[Found]:
    """Verify a case, then time what is right; without a clock only verify."""
    with arithmetic(case.kind), torch.inference_mode():
        try:
            problem = case.build(device)
            checks = verify(problem)
        except Exception as error:  # its tensors or float64 do not fit, or Triton can't serve it here
            return [Found(case, Check("all", True, FAILED, first_line(error)))]
        calls = problem.ours | problem.rivals
        right = {each.provider: calls[each.provider] for each in checks if each.verdict == RIGHT}
        times = in_turns(right, clock) if clock and right else {}
    return [_found(case, each, times.get(each.provider, ())) for each in checks]


def _found(case: Case, each: Check, times: tuple[float, ...] | str) -> Found:
    return Found(case, each, untimed=times) if isinstance(times, str) else Found(case, each, times)


def run(cases: Iterable[Case], device: torch.device, clock: Clock | None, tell: Callable[[str], None]) -> list[Found]:
    """Check the cases one after the other; after one that took the device down, the others are told as not run."""
    found: list[Found] = []
    lost = ""
    for case in cases:
        if lost:
            found.append(Found(case, Check("all", True, FAILED, f"not run: the device was lost in {lost}")))
            continue
        found += (new := check(case, device, clock))
        tell(f"{case}: " + ", ".join(f"{each.check.provider} {each.check.verdict}" for each in new))
        if any(each.reason for each in new) and not _answers(device):
            lost = str(case)
    return found


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
        description="Verify every Triton kernel in every type on this GPU against float64, and time what is right "
        "against sdpa, FlexAttention and eager code, in turns.",
        epilog="Right is an error of at most twice that of plain torch in the same type. "
        "Exit status: 0 all right, 1 a kernel is wrong or fails, 2 nothing could be checked.",
    )
    parser.add_argument("--quick", action="store_true", help="a few shapes of each kernel")
    parser.add_argument("--only", action="append", choices=KERNELS, help="only this kernel; repeatable")
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), help="file to write (%(default)s)")
    chosen = parser.parse_args(given)
    if chosen.json.is_dir():
        parser.error(f"--json: {chosen.json} is a folder; name a file")
    return chosen


def main(given: Sequence[str] | None = None) -> int:
    """Check the GPU at hand; returns the exit status."""
    chosen, console, progress = arguments(given), Console(), Console(stderr=True)

    def tell(text: str) -> None:
        say(text, to=progress)

    if not torch.cuda.is_available():
        tell("gpu_check needs a CUDA or ROCm device, and torch finds none here")
        return 2
    device = torch.device("cuda")
    reason = why_not(torch.empty(1, 1, 3, 1, 64, dtype=torch.float16, device=device))
    if reason:
        tell(f"gpu_check: Triton can't serve this GPU: {reason}")
        return 2
    cases = [case for case in all_cases(device, chosen.quick) if not chosen.only or case.kernel in chosen.only]
    return check_all(cases, device, gpu_clock(device), chosen.json, console, tell)


def check_all(
    cases: Sequence[Case],
    device: torch.device,
    clock: Clock | None,
    file: Path,
    console: Console,
    tell: Callable[[str], None],
) -> int:
    """Check the cases, print the table, write the file; returns the exit status."""
    facts = machine()
    say(machine_line(facts), to=console)
    found = run(cases, device, clock, tell)
    print_table(found, console)
    write_json(file, found, facts, shlex.join(sys.argv))
    bad = sum(each.bad for each in found)
    verdict = f"{bad} of {sum(each.check.ours for each in found)} checks of kernels are wrong or failed"
    say(f"{verdict}; written to {file}", to=console)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
