"""How `gem-fast tune` tries a candidate: against float64 on poisoned memory, then in turns of the GPU's clock."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch
from gem_fast.kernels.attention.reference import reference
from gem_fast.kernels.first_use import as_plain, distance
from torch import Tensor

from .launch import launch_attention
from .tile_search import Bench, DoesNotFitError, Problem, Tiles, Trial

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "tf32": torch.float32}
_FLOOR = 1e-6  # an error that is never too large, relative


@contextmanager
def arithmetic(kind: str) -> Iterator[None]:
    """float32 products and convolutions exactly, or in TF32 for `tf32`."""
    matmul, cudnn = torch.backends.cuda.matmul, cast(Any, torch.backends.cudnn)
    # Where the newer switch was used, the older one can't be read.
    newer = hasattr(matmul, "fp32_precision")
    where: tuple[Any, ...] = (matmul, cudnn.conv) if newer else (matmul, cudnn)
    switch, allowed, forbidden = ("fp32_precision", "tf32", "ieee") if newer else ("allow_tf32", True, False)
    before = [getattr(each, switch) for each in where]
    try:
        for each in where:
            setattr(each, switch, allowed if kind == "tf32" else forbidden)
        yield
    finally:
        for each, value in zip(where, before, strict=True):
            setattr(each, switch, value)


def median_ms(call: Callable[[], Any]) -> float:
    """Median time on the GPU in ms, of replays of a captured graph: below 0.15 ms the host would be timed instead."""
    from triton.testing import do_bench_cudagraph

    return float(do_bench_cudagraph(call, return_mode="median"))


def make_bench(
    problem: Problem,
    device: torch.device,
    report: Callable[[Trial], None],
    time: Callable[[Callable[[], Any]], float] = median_ms,
) -> Bench:
    """Random projections of the problem's shape on the device, whose first and last image are held against float64.

    What is allowed is twice the error of plain torch in the same type, the allowance of the tests.
    """
    B, N, H, D = problem.B, problem.N, problem.H, problem.D
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, N, 3, H, D, generator=generator).to(device, DTYPES[problem.kind])
    c = torch.linspace(2, 6, B, device=device)
    ends = slice(None, None, max(1, B - 1))
    truths: dict[tuple, tuple[Tensor, float]] = {}

    def truth(options: dict[str, Any]) -> tuple[Tensor, float]:
        key = tuple(options.values())
        if key not in truths:
            exact = reference(qkv[ends].double(), c[ends].double(), **options)
            plain = distance(reference(as_plain(qkv[ends], problem.kind), c[ends], **options), exact)
            truths[key] = exact, max(2 * plain, _FLOOR)
        return truths[key]

    def attention(options: dict[str, Any], tiles: Tiles) -> Tensor:
        return launch_attention(qkv, c, **options, tiles=tiles)

    def error(options: dict[str, Any], tiles: Tiles) -> float:
        with arithmetic(problem.kind):
            exact, allowed = truth(options)
            poison = torch.full((B, N, H * D), torch.nan, dtype=qkv.dtype, device=device)
            del poison  # the result is likely to get this memory: what is never written shows
            try:
                result = attention(options, tiles)[ends]
            except Exception as error:
                if type(error).__name__ in ("OutOfResources", "PTXASError"):
                    raise DoesNotFitError(str(error)) from error
                raise
            return distance(result, exact) / allowed

    def timed(options: dict[str, Any], tiles: Tiles) -> float:
        with arithmetic(problem.kind):
            return time(lambda: attention(options, tiles))

    return Bench(error, timed, report)


def try_ahead(problem: Problem, device: torch.device, options: dict[str, Any], tiles: Tiles) -> None:
    """Compile for a trial into Triton's cache on disk, by calling it; what fails is told by the trial itself."""
    with suppress(Exception):
        _bench(problem, device).error(options, tiles)


@functools.cache
def _bench(problem: Problem, device: torch.device) -> Bench:
    return make_bench(problem, device, lambda trial: None)
