"""Softmax attention of pairs of projections, of rows of any norm: what CLIP's other methods put in place of q·k."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from gem_fast.kernels.backends import Backend, operation
from gem_fast.kernels.first_use import random_tensors
from torch import Tensor

from . import cpu, triton
from .distance import bias_rows, distance_factors
from .sdpa import aligned
from .self_self import check_qkv, of_each_image

_INDEX = {"q": 0, "k": 1, "v": 2}
_QUERIES = 256  # rows of the bias that are held at a time

Pairs = tuple[tuple[int, int], ...]
Factors = tuple[Tensor, Tensor] | None


def pair_attention(
    qkv: Tensor,
    scale: Tensor | float,
    pairs: str,
    *,
    average: bool = False,
    grid: tuple[int, int] | None = None,
    sigma: float | None = None,
    class_token: bool = True,
    backend: str | None = None,
) -> Tensor:
    """`Σ softmax(scale · a bᵀ + bias) v` over pairs a, b of projections, or its mean.

    `"vv"` is CLIP Surgery's, `"qq+kk"` SCLIP's, `"qq"` ClearCLIP's, and `"kk"` with a bias NACLIP's.

    Args:
        qkv: the packed projections `[B, N, 3, H, D]`, any strides, a floating type.
        scale: positive: `[B]` for each image, or a number for all.
        pairs: two letters of q, k and v each, joined by `+`.
        average: divide by the number of pairs.
        grid: patches in height and width, for the bias; N is their product, and one more with a class token.
        sigma: of the bias `exp(-d²/2σ²)` of patches at the distance d, in patches; None for no bias.
        class_token: whether the first token is no patch.
        backend: `"reference"` (N×N in memory), `"sdpa"`, `"cpu"` (the native kernel) or `"triton"` (for CUDA and ROCm);
            None is what the environment variable `GEM_FAST_BACKEND` names, else the fastest that serves.

    Returns:
        `[B, N, H*D]` in the type of `qkv`.

    Raises:
        ValueError: an argument has the wrong shape, type or name, or a backend that was asked for can't serve; the
            message says what would be right.
    """
    check_qkv(qkv)
    if not isinstance(scale, Tensor):
        scale = of_each_image(scale, qkv, "scale")
    if scale.shape != qkv.shape[:1] or scale.device != qkv.device:
        raise ValueError(f"scale must be a number or have the shape [B] = [{qkv.shape[0]}] and lie on {qkv.device}")
    factors = None
    if sigma is not None:
        patches = qkv.shape[1] - int(class_token)  # a trace has tensors for sizes, less which no bool can be
        if not sigma >= 1e-18:  # of which float32 holds the square
            raise ValueError(f"sigma and its square must be positive, got {sigma}")
        if grid is None or min(grid) < 0 or grid[0] * grid[1] != patches:
            less = ", one less than the tokens" if class_token else ""
            raise ValueError(f"grid must have {patches} patches{less}, got {grid}")
        factors = distance_factors(grid, sigma, scale, class_token)
    result: Tensor = OPERATION(backend, qkv, scale, parse_pairs(pairs), average, factors)
    return result


def parse_pairs(pairs: str) -> Pairs:
    """`"qq+kk"` as indices into the third dimension of the projections; ValueError if it is not of that form."""
    named = pairs.split("+") if isinstance(pairs, str) else [""]
    if any(len(pair) != 2 or not set(pair) <= set(_INDEX) for pair in named) or len(set(named)) != len(named):
        raise ValueError(f"attention must be pairs of q, k and v joined by +, each once, such as qq+kk; got {pairs!r}")
    return tuple((_INDEX[pair[0]], _INDEX[pair[1]]) for pair in named)


def reference(qkv: Tensor, scale: Tensor, pairs: Pairs, average: bool, factors: Factors) -> Tensor:
    """The equation with the N×N matrices in memory, in the precision of its input."""
    heads = qkv.permute(2, 0, 3, 1, 4)  # [3, B, H, N, D]
    c = scale.to(qkv.dtype).view(-1, 1, 1, 1)
    bias = 0 if factors is None else bias_rows(factors, 0, qkv.shape[1]).to(qkv.dtype)
    outputs = [torch.softmax(c * (heads[a] @ heads[b].transpose(-2, -1)) + bias, dim=-1) @ heads[2] for a, b in pairs]
    total = torch.stack(outputs).sum(0)
    return (total / len(pairs) if average else total).transpose(1, 2).flatten(2)


def sdpa(qkv: Tensor, scale: Tensor, pairs: Pairs, average: bool, factors: Factors) -> Tensor:
    """On `scaled_dot_product_attention`, with the scale folded into the queries; of a bias some rows at a time."""
    wide = torch.promote_types(qkv.dtype, torch.float32)
    heads = aligned(qkv).permute(2, 0, 3, 1, 4)  # [3, B, H, N, D]
    c = scale.to(wide).view(-1, 1, 1, 1)
    total = None
    for a, b in pairs:
        queries = (heads[a].to(wide) * c).to(qkv.dtype)
        output = _attend(queries, heads[b], heads[2], factors).to(wide)
        total = output if total is None else total + output
    assert total is not None
    return (total / len(pairs) if average else total).to(qkv.dtype).transpose(1, 2).flatten(2)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, factors: Factors) -> Tensor:
    if factors is None:
        return F.scaled_dot_product_attention(queries, keys, values, scale=1.0)
    N = queries.shape[2]
    parts = []
    for start in range(0, N, _QUERIES):
        end = min(start + _QUERIES, N)
        bias = bias_rows(factors, start, end).to(queries.dtype)
        parts.append(F.scaled_dot_product_attention(queries[:, :, start:end], keys, values, attn_mask=bias, scale=1.0))
    return torch.cat(parts, dim=2)


def trials(dtype: torch.dtype, device: torch.device) -> Iterator[tuple[Any, ...]]:
    """Without a bias, and with that of a grid."""
    (qkv,) = random_tensors(dtype, device, (1, 145, 3, 2, 64))
    for grid in (None, (9, 16)):
        scale = torch.tensor([0.125], device=device)
        yield qkv, scale, ((0, 0), (1, 2)), True, None if grid is None else distance_factors(grid, 5.0, scale)


OPERATION = operation(
    "pair_attention",
    Backend("cpu", cpu.pairs_cpu, cpu.why_not_pairs),
    Backend("triton", triton.pairs_triton, triton.why_not_pairs, triton.pays_pairs, trials, multiplies=True),
    Backend("sdpa", sdpa, pays=lambda qkv, *_: qkv.dtype != torch.float64),
    Backend("reference", reference),
    example=lambda dtype, device: (
        torch.empty(1, 785, 3, 12, 64, dtype=dtype, device=device),
        torch.empty(1, device=device),
        ((0, 0), (1, 1)),
        False,
        None,
    ),
)
