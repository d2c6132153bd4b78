"""Eq. 3 of GEM on rows of any norm: a flash-attention-2 style loop, with running maximum and row sum.

For `normalize=False`, where a row's largest logit is not known beforehand.
"""

import triton
import triton.language as tl

from .rows import LOG2E, added, load_rows, scaled, similarity, store_rows, weighted_sum, zero_rows


@triton.jit
def attend_kernel(
    query,  # [B, N, P, H, D], strided; the keys too; for TF32 products rounded
    value,  # [B, N, H, D], the same
    out,  # [B, N, H, D], strided
    inverse_temperature,  # [B]
    query_b,
    query_n,
    query_p,
    query_h: tl.constexpr,
    value_b,
    value_n,
    value_h: tl.constexpr,
    out_b,
    out_n,
    out_h: tl.constexpr,
    N,
    P,
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WHOLE: tl.constexpr,  # N is a multiple of KEYS: nothing to mask
    PRECISION: tl.constexpr,
):
    """Mean over the projections of softmax(c · query queryᵀ) value."""
    i_head, i_image = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    c = tl.load(inverse_temperature + i_image) * LOG2E
    o_rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    query += i_image * query_b + i_head * query_h
    value += i_image * value_b + i_head * value_h
    mean = zero_rows(ROWS, MAIN, REST)
    for _ in range(P):
        q = load_rows(query, o_rows, query_n, N, D, MAIN, REST)
        acc, total = zero_rows(ROWS, MAIN, REST), tl.zeros((ROWS,), tl.float32)
        maximum = tl.full((ROWS,), float("-inf"), tl.float32)
        for i in range(0, N, KEYS):
            o_keys = i + tl.arange(0, KEYS)
            key = load_rows(query, o_keys, query_n, N, D, MAIN, REST)
            s = similarity(q, key, PRECISION)
            if not WHOLE:
                s = tl.where((o_keys < N)[None, :], s, float("-inf"))
            higher = tl.maximum(maximum, tl.max(s, 1) * c)
            weights = tl.exp2(s * c - higher[:, None])
            rescale = tl.exp2(maximum - higher)
            v = load_rows(value, o_keys, value_n, N, D, MAIN, REST)
            acc = weighted_sum(weights, v, scaled(acc, rescale), PRECISION)
            total = total * rescale + tl.sum(weights, 1)
            maximum = higher
        mean = added(mean, scaled(acc, 1.0 / (P * total)))
        query += query_p
    out += i_image * out_b + i_head * out_h
    store_rows(out, o_rows, out_n, N, D, MAIN, REST, mean)
