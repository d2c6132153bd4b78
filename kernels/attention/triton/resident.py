"""Eq. 3 and 5-7 of GEM for heads that fit one program: every iteration and projection in one launch, N ≤ 128."""

import triton
import triton.language as tl

from .rows import (
    LOG2E,
    added,
    cast,
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
def attention_weights(p, c, PRECISION: tl.constexpr):
    """exp(c (p · pᵀ - |p|²)), [R, R]: a unit row's largest logit is its own."""
    return tl.exp2(similarity(p, p, PRECISION) * c - (c * squared_norm(p))[:, None])


@triton.jit
def resident_kernel(
    projections,  # [B, N, P, H, D], strided
    value,  # [B, N, H, D], strided; for TF32 products rounded
    out,  # [B, N, H * D]
    inverse_temperature,  # [B]
    stride_b,
    stride_n,
    stride_p,
    stride_h: tl.constexpr,
    value_b,
    value_n,
    value_h: tl.constexpr,
    N,
    iterations,
    P,
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    STEEPEST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program a head: p and the N×N weights never leave the chip."""
    i_head, i_image = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    dtype: tl.constexpr = value.dtype.element_ty
    c = tl.minimum(tl.load(inverse_temperature + i_image), STEEPEST) * LOG2E
    o_rows = tl.arange(0, ROWS)
    inside = (o_rows < N).to(tl.float32)
    value += i_image * value_b + i_head * value_h
    projections += i_image * stride_b + i_head * stride_h
    mean = zero_rows(ROWS, MAIN, REST)
    for _ in range(P):
        p = unit(load_rows(projections, o_rows, stride_n, N, D, MAIN, REST))
        p = cast(rounded(p, PRECISION), dtype)
        for _ in range(iterations):
            acc = weighted_sum(attention_weights(p, c, PRECISION), p, zero_rows(ROWS, MAIN, REST), PRECISION)
            p = cast(rounded(scaled(unit(acc), inside), PRECISION), dtype)
        v = load_rows(value, o_rows, value_n, N, D, MAIN, REST)
        weights = attention_weights(p, c, PRECISION) * inside[None, :]
        acc = weighted_sum(weights, v, zero_rows(ROWS, MAIN, REST), PRECISION)
        mean = added(mean, scaled(acc, 1.0 / (P * tl.sum(weights, 1))))
        projections += stride_p
    out += i_image * N * tl.num_programs(0) * D + i_head * D
    store_rows(out, o_rows, tl.num_programs(0) * D, N, D, MAIN, REST, mean)
