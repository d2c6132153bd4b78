"""The attention of pairs of projections on Triton: one launch for all pairs, and the bias from its two tables."""

from collections.abc import Sequence
from typing import Any

import torch
from gem_fast.kernels.operators import register
from gem_fast.kernels.triton_host import is_compiled_for, on_device
from torch import Tensor

from ..distance import why_not_factors
from .call import Call
from .launch import why_not


def why_not_pairs(
    qkv: Tensor, scale: Tensor, pairs: object, average: bool, factors: tuple[Tensor, Tensor] | None
) -> str | None:
    """The reason why `pairs_triton` can't serve these arguments, or None if it can."""
    return why_not_factors(factors) or why_not(qkv, scale)


def pays_pairs(qkv: Tensor, scale: Tensor, pairs: object, average: bool, factors: tuple[Tensor, Tensor] | None) -> bool:
    """Whether to take it unasked: in 16-bit types, and with the bias for heads of up to 64 channels.

    On an H100 it took 0.27 to 0.75 of `sdpa`'s time, and for wider heads with the bias 1.6 times as long.
    """
    narrow = factors is None or qkv.shape[-1] <= 64
    return narrow and qkv.dtype.itemsize == 2 and is_compiled_for(qkv.device)


def pairs_triton(
    qkv: Tensor,
    scale: Tensor,
    pairs: Sequence[tuple[int, int]],
    average: bool,
    factors: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """`Σ softmax(scale · a bᵀ + bias) v` over pairs, where `why_not_pairs` is None; arguments as in `pairs.py`.

    Logits, sums and the bias are float32, and so is float32's product unless torch allows TF32.
    """
    down, across = (None, None) if factors is None else (each.float().contiguous() for each in factors)
    indices = [index for pair in pairs for index in pair]
    found: Tensor = _OPERATOR(qkv, scale, indices, average, down, across)
    return found


def _pairs(
    qkv: Tensor, scale: Tensor, pairs: Sequence[int], average: bool, down: Tensor | None, across: Tensor | None
) -> Tensor:
    B, N, _, H, D = qkv.shape
    out = torch.empty(B, N, H * D, dtype=qkv.dtype, device=qkv.device)
    if out.numel() == 0:
        return out
    call = Call(qkv, scale, [0, 1, 2], {})
    factors = None if down is None or across is None else (down, across)
    with on_device(qkv.device):
        rows = call.rounded(qkv)
        each = list(zip(pairs[::2], pairs[1::2], strict=True))
        call.pairs(rows, rows[:, :, 2], out.view(B, N, H, D), each, average, factors)
    return out


def _fake(qkv: Tensor, *_arguments: Any) -> Tensor:
    B, N, _, H, D = qkv.shape
    return qkv.new_empty(B, N, H * D)


_OPERATOR = register(
    "pair_attention_triton(Tensor qkv, Tensor scale, int[] pairs, bool average, Tensor? down, Tensor? across)"
    " -> Tensor",
    _pairs,
    _fake,
)
