"""Eq. 6 and 7 of GEM on unit rows: the values under each projection's attention, averaged over the projections."""

import triton
import triton.language as tl

from .rows import (
    LOG2E,
    added,
    cast,
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
def load_units(
    base,
    start,
    stride,
    N,
    R: tl.constexpr,
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    IN_PLACE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """R unit rows from `start`: out of the packed workspace, or straight from a projection, then normalised here."""
    if IN_PLACE:
        rows = load_rows(base, start + tl.arange(0, R), stride, N, D, MAIN, REST)
        return cast(rounded(unit(rows), PRECISION), base.dtype.element_ty)
    else:
        return load_packed(base + start * (MAIN + REST), R, MAIN, REST)


@triton.jit
def assign_kernel(
    units,  # [B, P, H, padded, MAIN + REST], or in place the projections [B, N, P, H, D]
    value,  # [B, N, H, D], strided; for TF32 products rounded
    out,  # [B, N, H * D]
    inverse_temperature,  # [B]
    unit_b,
    unit_n,
    unit_p,
    unit_h,
    value_b,
    value_n,
    value_h: tl.constexpr,
    N,
    P,
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    IN_PLACE: tl.constexpr,
    STEEPEST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """O = mean over the projections of Σ w value / Σ w, with w = exp(c (p · key - |p|²)).

    A padded key has weight exp(-c |p|²) and value zero, so it leaves only the sum to be corrected.
    With 0 iterations (`IN_PLACE`) this is the whole operation in one launch.
    """
    i_head, i_image = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    c = tl.minimum(tl.load(inverse_temperature + i_image), STEEPEST) * LOG2E
    start = tl.program_id(0) * ROWS
    units += i_image * unit_b + i_head * (value_h if IN_PLACE else unit_h)
    value += i_image * value_b + i_head * value_h
    steps = tl.cdiv(N, KEYS)
    mean = zero_rows(ROWS, MAIN, REST)
    for _ in range(P):
        query = load_units(units, start, unit_n, N, ROWS, D, MAIN, REST, IN_PLACE, PRECISION)
        shift = c * squared_norm(query)
        acc, total = zero_rows(ROWS, MAIN, REST), tl.zeros((ROWS,), tl.float32)
        for i in range(0, steps * KEYS, KEYS):
            key = load_units(units, i, unit_n, N, KEYS, D, MAIN, REST, IN_PLACE, PRECISION)
            weights = tl.exp2(similarity(query, key, PRECISION) * c - shift[:, None])
            v = load_rows(value, i + tl.arange(0, KEYS), value_n, N, D, MAIN, REST)
            acc = weighted_sum(weights, v, acc, PRECISION)
            total += tl.sum(weights, 1)
        total -= (steps * KEYS - N) * tl.exp2(-shift)
        mean = added(mean, scaled(acc, 1.0 / (P * total)))
        units += unit_p
    out += i_image * N * tl.num_programs(1) * D + i_head * D
    store_rows(out, start + tl.arange(0, ROWS), tl.num_programs(1) * D, N, D, MAIN, REST, mean)
