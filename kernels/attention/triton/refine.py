"""Eq. 5 of GEM on unit rows: normalise once, then iterate in a packed workspace [B, P, H, padded N, width]."""

import triton
import triton.language as tl

from .rows import (
    LOG2E,
    load_packed,
    load_rows,
    rounded,
    scaled,
    similarity,
    squared_norm,
    store_rows,
    unit,
    weighted_sum,
    zero_rows,
)


@triton.jit
def normalize_kernel(
    projections,  # [B, N, P, H, D], strided
    units,  # [B, P, H, padded, MAIN + REST]; rows from N to padded are written as zero
    temperatures,  # [B, N] of the tokens
    inverse_temperature,  # [B], their mean
    stride_b,
    stride_n,
    stride_p,
    stride_h: tl.constexpr,  # that of D = 104 is no multiple of 16, but as a constant one of 8
    N,
    padded,
    H,
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    MEAN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """p⁰ = projection / |projection|, in place in strides, once for all iterations.

    With `MEAN`, one program of an image writes the inverse temperature that the kernels after this one read.
    """
    i_head, i_image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    if MEAN:  # noqa: SIM102 - known when it is compiled
        if (tl.program_id(0) == 0) & (i_head == 0):
            o_tokens, total = tl.arange(0, 256), tl.zeros((256,), tl.float32)
            for start in range(0, N, 256):
                at = start + o_tokens
                total += tl.load(temperatures + i_image * N + at, mask=at < N, other=0.0)
            tl.store(inverse_temperature + i_image, tl.sum(total) / N)
    head = (i_image * tl.num_programs(1) + i_head) * padded * (MAIN + REST)
    o_rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    source = projections + i_image * stride_b + (i_head // H).to(tl.int64) * stride_p
    rows = load_rows(source + (i_head % H).to(tl.int64) * stride_h, o_rows, stride_n, N, D, MAIN, REST)
    rows = rounded(unit(rows), PRECISION)
    store_rows(units + head, o_rows, MAIN + REST, padded, MAIN + REST, MAIN, REST, rows)


@triton.jit
def refine_kernel(
    units,  # [B, P, H, padded, MAIN + REST]
    refined,  # the same
    inverse_temperature,  # [B]
    N,
    padded,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    STEEPEST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """pᵏ = normalize(Σ exp(c (s - |p|²)) pᵏ⁻¹), s = p · key.

    No running maximum: a unit row's largest logit is its own, c |p|² (0 for a zero row). No row sum: it cancels in the
    normalisation. No mask: a padded key is zero, and it is the value too.
    """
    i_image = tl.program_id(2).to(tl.int64)
    head = (i_image * tl.num_programs(1) + tl.program_id(1)) * padded * (MAIN + REST)
    start = tl.program_id(0) * ROWS
    query = load_packed(units + head + start * (MAIN + REST), ROWS, MAIN, REST)
    c = tl.minimum(tl.load(inverse_temperature + i_image), STEEPEST) * LOG2E
    shift = (c * squared_norm(query))[:, None]
    acc = zero_rows(ROWS, MAIN, REST)
    keys = units + head
    for _ in range(0, padded, KEYS):
        key = load_packed(keys, KEYS, MAIN, REST)
        weights = tl.exp2(similarity(query, key, PRECISION) * c - shift)
        acc = weighted_sum(weights, key, acc, PRECISION)
        keys += KEYS * (MAIN + REST)
    o_rows = start + tl.arange(0, ROWS)
    acc = rounded(scaled(unit(acc), (o_rows < N).to(tl.float32)), PRECISION)
    store_rows(refined + head, o_rows, MAIN + REST, padded, MAIN + REST, MAIN, REST, acc)
