"""Attention by the native CPU kernel of `native/`: vectorised, in one pass a head, on torch's threads."""

import ctypes
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from gem_fast.kernels.cpu_library import PATHS, call, choose_path, int64s, pointer, why_missing
from gem_fast.kernels.operators import register
from torch import Tensor

from .distance import why_not_factors

LARGEST_D = 128
BLOCK = 96  # tokens that the library takes at a time
_REPEATED = 0.1  # of a head's time, about, what every part of it spends again if it is cut
_SELF_SELF, _QUERY_KEY, _PAIRS = 0, 1, 2
LOG2_E = 1.4426950408889634
_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def path_for(dtype: torch.dtype, asked: str | None = None) -> str:
    """The instruction set for a type, or the one asked for: bfloat16 products are for bfloat16 alone."""
    return choose_path(PATHS if dtype == torch.bfloat16 else PATHS[1:], asked)


def why_not_tokens(qkv: Tensor) -> str | None:
    """Why the kernel can't attend over these tokens, whatever the attention, or None."""
    D = qkv.shape[-1]
    missing = why_missing()
    if missing:
        return missing
    if qkv.device.type != "cpu":
        return f"it runs on the CPU, and qkv is on {qkv.device.type}"
    if qkv.dtype not in _TYPES:
        return f"it computes float32, bfloat16 and float16, and qkv is {str(qkv.dtype).removeprefix('torch.')}"
    if D % 8 or not 0 < D <= LARGEST_D:
        return f"it takes a D that is a multiple of 8 up to {LARGEST_D}, and D is {D}"
    if torch.is_grad_enabled() and qkv.requires_grad:
        return "it has no backward, and qkv requires a gradient"
    return None


def why_not(
    qkv: Tensor, inverse_temperature: Any, iterations: int, projections: Sequence[int], normalize: bool
) -> str | None:
    """Why the kernel can't serve these arguments of self-self attention, or None."""
    if not normalize:
        return "it takes the largest logit to be 1/τ, which holds for rows of norm 1 and not with normalize=False"
    return why_not_tokens(qkv)


def cpu(
    qkv: Tensor,
    inverse_temperature: Tensor,
    iterations: int,
    projections: tuple[int, ...],
    normalize: bool = True,
    *,
    path: str | None = None,
) -> Tensor:
    """Eq. 3 and 5-7 of GEM, where `why_not` is None.

    Shapes: qkv [B, N, 3, H, D] of any strides, copied only if its last dimension is not contiguous,
    inverse_temperature [B], result [B, N, H*D]. Sums are float32; on `avx512_bf16` the factors of the products are
    bfloat16. `path` is one of `paths()`; None is the fastest for the type.
    """
    path = path_for(qkv.dtype, path)
    return _SELF_SELF_ATTENTION(qkv, inverse_temperature, iterations, projections, path)


def query_key_cpu(qkv: Tensor, *, path: str | None = None) -> Tensor:
    """softmax(q kᵀ/√D) v of qkv [B, N, 3, H, D] to [B, N, H*D], where `why_not_tokens` is None."""
    return _QUERY_KEY_ATTENTION(qkv, path_for(qkv.dtype, path))


def why_not_pairs(
    qkv: Tensor, scale: Tensor, pairs: Any, average: bool, factors: tuple[Tensor, Tensor] | None
) -> str | None:
    """Why the kernel can't serve these arguments of the attention of pairs, or None."""
    return why_not_factors(factors) or why_not_tokens(qkv)


def pairs_cpu(
    qkv: Tensor,
    scale: Tensor,
    pairs: Sequence[tuple[int, int]],
    average: bool,
    factors: tuple[Tensor, Tensor] | None,
    *,
    path: str | None = None,
) -> Tensor:
    """`Σ softmax(scale · a bᵀ + bias) v` over pairs, where `why_not_pairs` is None; arguments as in `pairs.py`."""
    down, across = (None, None) if factors is None else (_table(factors[0], LOG2_E), _table(factors[1], 1.0))
    indices = [index for pair in pairs for index in pair]
    return _PAIR_ATTENTION(qkv, scale, indices, average, down, across, path_for(qkv.dtype, path))


def _table(factor: Tensor, times: float) -> Tensor:
    """A factor of the bias as the kernel reads it: whole blocks of columns, and a last row of zeros."""
    return torch.nn.functional.pad(factor.to(torch.float32) * times, (0, -factor.shape[1] % BLOCK, 0, 1))


def _pair(
    qkv: Tensor,
    scale: Tensor,
    pairs: Sequence[int],
    average: bool,
    down: Tensor | None,
    across: Tensor | None,
    path: str,
) -> Tensor:
    return _call(_PAIRS, qkv, scale, path, pairs=pairs, average=average, tables=(down, across))


def _self_self(
    qkv: Tensor, inverse_temperature: Tensor, iterations: int, projections: Sequence[int], path: str
) -> Tensor:
    return _call(_SELF_SELF, qkv, inverse_temperature, path, projections=projections, iterations=iterations)


def _query_key(qkv: Tensor, path: str) -> Tensor:
    B, _, _, _, D = qkv.shape
    return _call(_QUERY_KEY, qkv, qkv.new_full((B,), D**-0.5, dtype=torch.float32), path)


def _call(
    computation: int,
    qkv: Tensor,
    c: Tensor,
    path: str,
    *,
    projections: Sequence[int] = (),
    pairs: Sequence[int] = (),
    average: bool = True,
    iterations: int = 0,
    tables: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor:
    """A call of the library; `pairs` has two indices for each pair, and `tables` are those of the bias."""
    B, N, _, H, D = qkv.shape
    if not qkv.numel():
        return qkv.new_empty(B, N, H * D)
    separate, indices = computation != _QUERY_KEY, projections or pairs
    count = len(projections) or len(pairs) // 2
    parts = _parts(B * H, [1, count] if separate else range(1, 1 + -(-N // BLOCK)))
    separate = separate and parts > 1
    out = qkv.new_empty(parts, B, N, H * D, dtype=torch.float32) if separate else qkv.new_empty(B, N, H * D)
    qkv = qkv if qkv.stride(-1) == 1 else qkv.contiguous()
    c = c.to(torch.float32).contiguous()
    down, across = tables
    grid = (0, 0) if across is None else (len(across) - 1, across.shape[1])
    call(
        "gem_fast_attention",
        computation,
        pointer(qkv),
        int64s(qkv.stride()[:4]),
        pointer(c),
        pointer(out),
        int64s((B, N, H, D)),
        _TYPES[qkv.dtype],
        (ctypes.c_int * len(indices))(*indices),
        count,
        count if average else 1,
        iterations,
        None if down is None else pointer(down),
        None if across is None else pointer(across),
        int64s(grid),
        PATHS.index(path),
        torch.get_num_threads(),
        parts,
    )
    return functools.reduce(torch.Tensor.add_, out).to(qkv.dtype) if separate else out


def _parts(heads: int, choices: Iterable[int]) -> int:
    """Into how many parts each head is cut so that the threads finish earliest; 1 if there are heads enough."""
    threads = torch.get_num_threads()
    return min(choices, key=lambda parts: -(-heads * parts // threads) * (1 / parts + _REPEATED))


def _result(qkv: Tensor, *_arguments: Any) -> Tensor:
    B, N, _, H, D = qkv.shape
    return qkv.new_empty(B, N, H * D)


_SELF_SELF_ATTENTION = register(
    "self_self_attention_cpu(Tensor qkv, Tensor inverse_temperature, int iterations, int[] projections, str path)"
    " -> Tensor",
    _self_self,
    _result,
)
_QUERY_KEY_ATTENTION = register("query_key_attention_cpu(Tensor qkv, str path) -> Tensor", _query_key, _result)
_PAIR_ATTENTION = register(
    "pair_attention_cpu(Tensor qkv, Tensor scale, int[] pairs, bool average, Tensor? down, Tensor? across, str path)"
    " -> Tensor",
    _pair,
    _result,
)
