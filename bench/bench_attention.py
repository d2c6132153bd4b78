"""Attention by the native CPU kernel against `scaled_dot_product_attention`, in turns in one run."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gem_fast.bench.providers import TOLERANCE
from gem_fast.bench.turns import Work
from gem_fast.export.comparison import relative_error
from gem_fast.kernels import pair_attention, query_key_attention, self_self_attention
from gem_fast.kernels.attention.cpu import query_key_cpu
from gem_fast.kernels.attention.reference import reference
from gem_fast.kernels.cpu_library import paths
from torch import Tensor

# Images, heads, tokens, head width: ViT-B/16 at 448×448 (batch 3 and 1), 224×224 and 1024×1024; ViT-H/14 at 224×224.
SHAPES = [(3, 12, 785, 64), (1, 12, 785, 64), (8, 12, 197, 64), (1, 12, 4097, 64), (2, 16, 257, 80)]
CASES = [
    pytest.param(
        dtype,
        shape,
        id=f"{dtype}-{'x'.join(map(str, shape))}",
        marks=pytest.mark.full if dtype == "float16" or shape[2] > 1000 else (),
    )
    for dtype in TOLERANCE
    for shape in SHAPES
]
QKV = (0, 1, 2)

pytestmark = pytest.mark.skipif(not paths(), reason="the native kernel is not here")


def make_qkv(shape: tuple[int, int, int, int], dtype: str) -> tuple[Tensor, Tensor]:
    """Projections [B, N, 3, H, D] whose tokens have norms of 0.2 to 5, and inverse temperatures of 2 to 5."""
    B, H, N, D = shape
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, N, 3, H, D, generator=generator) / D**0.5
    norms = torch.empty(B, N, 3, H, 1).uniform_(0.2, 5, generator=generator)
    return (qkv * norms).to(getattr(torch, dtype)), torch.linspace(2, 5, B)


def work(shape: tuple[int, int, int, int], dtype: str, products: int) -> Work:
    """`products` N×N×D products a head; those that the symmetry of p pᵀ saves count as done. q, k, v are read once."""
    B, H, N, D = shape
    item = getattr(torch, dtype).itemsize
    return Work(2 * products * B * H * N * N * D, 4 * B * H * N * D * item, B, dtype)


@pytest.mark.parametrize(("dtype", "shape"), CASES)
@torch.inference_mode()
def test_self_self(in_turns: Callable[..., Any], dtype: str, shape: tuple[int, int, int, int]) -> None:
    """One iteration and the assignment, all three projections; its error is held against SDPA's first."""
    qkv, c = make_qkv(shape, dtype)
    if shape[2] < 1000:
        truth = reference(qkv[:1].double(), c[:1], iterations=1, projections=QKV, normalize=True)
        errors = [relative_error(self_self_attention(qkv[:1], c[:1], backend=name), truth) for name in ("cpu", "sdpa")]
        assert errors[0] <= max(errors[1], 1e-6)
    else:
        results = [self_self_attention(qkv, c, backend=name) for name in ("cpu", "sdpa")]
        assert relative_error(results[0], results[1].double()) <= TOLERANCE[dtype]
    in_turns(
        {name: lambda name=name: self_self_attention(qkv, c, backend=name) for name in ("cpu", "sdpa")},
        rounds=3 if shape[2] > 1000 else 9,
        work=work(shape, dtype, 2 * 2 * 3),
    )


@pytest.mark.parametrize(("dtype", "shape"), CASES)
@torch.inference_mode()
def test_query_key(in_turns: Callable[..., Any], dtype: str, shape: tuple[int, int, int, int]) -> None:
    """The attention of an unchanged block."""
    qkv, _ = make_qkv(shape, dtype)
    sample = qkv[:1, :, :, :2]
    truth = query_key_attention(sample.double(), backend="sdpa")
    allowed = 2 * relative_error(query_key_attention(sample, "sdpa"), truth)
    assert relative_error(query_key_cpu(sample), truth) <= max(allowed, 1e-6)
    providers = {"cpu": lambda: query_key_cpu(qkv), "sdpa": lambda: query_key_attention(qkv, "sdpa")}
    in_turns(providers, rounds=3 if shape[2] > 1000 else 15, work=work(shape, dtype, 2))


# CLIP Surgery's, SCLIP's and NACLIP's.
@pytest.mark.parametrize(("pairs", "sigma"), [("vv", None), ("qq+kk", None), ("kk", 5.0)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.inference_mode()
def test_pairs(in_turns: Callable[..., Any], dtype: str, pairs: str, sigma: float | None) -> None:
    """The attention that other methods put in place of q·k, of rows of any norm; ViT-B/16 at 448×448."""
    qkv, _ = make_qkv(SHAPES[1], dtype)
    ways = {
        name: lambda qkv=qkv, name=name: pair_attention(qkv, 0.125, pairs, grid=(28, 28), sigma=sigma, backend=name)
        for name in ("cpu", "sdpa")
    }
    truth = pair_attention(qkv.double(), 0.125, pairs, grid=(28, 28), sigma=sigma, backend="reference")
    errors = [relative_error(way(), truth) for way in ways.values()]
    assert errors[0] <= max(2 * errors[1], 1e-6)
    in_turns(ways, rounds=15, work=work(SHAPES[1], dtype, 2 * len(pairs.split("+"))))
