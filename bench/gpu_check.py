"""Verify and time the Triton attention on the GPU at hand: `python -m gem_fast.bench.gpu_check [file.json]`.

Each case is compared with float64 first; one whose error is too large is not timed, and makes the command fail.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gem_fast.kernels.attention.reference import reference
from gem_fast.kernels.attention.sdpa import sdpa
from gem_fast.kernels.attention.triton import triton_attention, why_not
from torch import Tensor

TOWERS = {  # batch, tokens, heads, head width
    "ViT-B/32 224": (32, 50, 12, 64),
    "ViT-B/16 224": (16, 197, 12, 64),
    "ViT-L/14 224": (8, 257, 16, 64),
    "ViT-B/16 448": (4, 785, 12, 64),
    "ViT-H/14 448": (2, 1025, 16, 80),
    "ViT-g/14 448": (2, 1025, 16, 88),
    "ViT-bigG/14 448": (2, 1025, 16, 104),
    "ViT-B/16 1024": (1, 4097, 12, 64),
}
Attention = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """One shape in one type, and what was found: errors relative to float64, medians in milliseconds."""

    tower: str
    dtype: str
    iterations: int
    error: float
    plain_error: float
    right: bool
    triton_ms: float | None = None
    sdpa_ms: float | None = None


def check(tower: str, dtype: torch.dtype, iterations: int, device: str = "cuda") -> Case:
    """Errors of the kernels and of plain torch in the same type; times only if the kernels are right.

    Right means at most twice the error of plain torch, the same allowance as in the tests.
    """
    B, N, H, D = TOWERS[tower]
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, N, 3, H, D, generator=generator).to(device, dtype)
    c = torch.linspace(1, 8, B, device=device)
    options: dict[str, Any] = {"iterations": iterations, "projections": (0, 1, 2), "normalize": True}
    truth = reference(qkv[:1].double(), c[:1].double(), **options)

    def error(attention: Attention) -> float:
        return ((attention(qkv[:1], c[:1], **options).double() - truth).norm() / truth.norm()).item()

    ours, plain = error(triton_attention), error(reference)
    case = Case(tower, str(dtype).removeprefix("torch."), iterations, ours, plain, ours <= max(2 * plain, 1e-6))
    if not case.right or device != "cuda":
        return case
    ours_ms, sdpa_ms = (time_of(attention, qkv, c, options) for attention in (triton_attention, sdpa))
    return replace(case, triton_ms=ours_ms, sdpa_ms=sdpa_ms)


def time_of(attention: Attention, qkv: Tensor, c: Tensor, options: dict[str, Any]) -> float:
    from triton.testing import do_bench

    return float(do_bench(lambda: attention(qkv, c, **options), return_mode="median"))


def line(case: Case) -> str:
    verdict = "right" if case.right else "WRONG"
    text = f"{case.tower:16} {case.dtype:9} K={case.iterations}  {verdict}"
    text += f"  error {case.error:.1e} (torch {case.plain_error:.1e})"
    if case.triton_ms is None or case.sdpa_ms is None:
        return text
    return f"{text}  triton {case.triton_ms:.3f} ms  sdpa {case.sdpa_ms:.3f} ms  {case.sdpa_ms / case.triton_ms:.2f}×"


def main(file: str = "gpu_check.json") -> None:
    """Check every tower in every type with 0, 1 and 2 iterations; print a table and write JSON."""
    if not torch.cuda.is_available():
        sys.exit("gpu_check needs a CUDA or ROCm device; none was found")
    reason = why_not(torch.empty(1, 1, 3, 1, 64, dtype=torch.float16, device="cuda"))
    if reason:
        sys.exit(f"gpu_check: Triton can't serve this GPU: {reason}")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    cases = []
    for tower in TOWERS:
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            for iterations in (0, 1, 2):
                cases.append(check(tower, dtype, iterations))
                print(line(cases[-1]), flush=True)
    Path(file).write_text(json.dumps([asdict(case) for case in cases], indent=1) + "\n")
    sys.exit(0 if all(case.right for case in cases) else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
