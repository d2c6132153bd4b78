"""Softmax attention of rows of any norm: a flash-attention-2 style loop, with running maximum and row sum.

For pairs of projections, and for GEM with `normalize=False`, where a row's largest logit is not known beforehand.
"""

import triton
import triton.language as tl

from .rows import LOG2E, added, load_rows, scaled, similarity, store_rows, weighted_sum, zero_rows


@triton.jit
def near_bias(down, across, rows, keys, N, columns):
    """The bias of patches near each other [R, K] by its two tables [.., N]; that of the class token is 0."""
    patches = tl.maximum(rows - 1, 0)
    inside = ((rows > 0) & (rows < N))[:, None] & (keys < N)[None, :]
    bias = tl.load(down + (patches // columns * N)[:, None] + keys[None, :], mask=inside, other=0.0)
    return bias * tl.load(across + (patches % columns * N)[:, None] + keys[None, :], mask=inside, other=0.0)


@triton.jit(do_not_specialize=["pairs"])  # which the loop divides
def attend_kernel(
    projections,  # [B, N, P, H, D], strided; for TF32 products rounded
    value,  # [B, N, H, D], the same
    out,  # [B, N, H, D], strided
    inverse_temperature,  # [B]
    down,  # [h, N], as `distance.py` makes them
    across,  # [columns, N]
    stride_b,
    stride_n,
    stride_p,
    stride_h: tl.constexpr,
    value_b,
    value_n,
    value_h: tl.constexpr,
    out_b,
    out_n,
    out_h: tl.constexpr,
    N,
    columns,  # patches in width
    pairs,  # indices a and b of each, as digits of a number to the base 3: b, a, b, a, ...
    P,  # of them
    share,  # of the result that each pair has
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    WHOLE: tl.constexpr,  # N is a multiple of KEYS: nothing to mask
    NEAR: tl.constexpr,  # with the bias
    PRECISION: tl.constexpr,
):
    """Σ share · softmax(c · a bᵀ + bias) value over pairs a, b of the projections."""
    i_head, i_image = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    scale = tl.load(inverse_temperature + i_image)
    c = scale * LOG2E
    o_rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    projections += i_image * stride_b + i_head * stride_h
    value += i_image * value_b + i_head * value_h
    mean = zero_rows(ROWS, MAIN, REST)
    for _ in range(P):
        queries = projections + (pairs // 3 % 3).to(tl.int64) * stride_p
        keys = projections + (pairs % 3).to(tl.int64) * stride_p
        q = load_rows(queries, o_rows, stride_n, N, D, MAIN, REST)
        acc, total = zero_rows(ROWS, MAIN, REST), tl.zeros((ROWS,), tl.float32)
        maximum = tl.full((ROWS,), float("-inf"), tl.float32)
        for i in range(0, N, KEYS):
            o_keys = i + tl.arange(0, KEYS)
            key = load_rows(keys, o_keys, stride_n, N, D, MAIN, REST)
            s = similarity(q, key, PRECISION)
            if NEAR:
                s += near_bias(down, across, o_rows, o_keys, N, columns) / scale
            if not WHOLE:
                s = tl.where((o_keys < N)[None, :], s, float("-inf"))
            higher = tl.maximum(maximum, tl.max(s, 1) * c)
            weights = tl.exp2(s * c - higher[:, None])
            rescale = tl.exp2(maximum - higher)
            v = load_rows(value, o_keys, value_n, N, D, MAIN, REST)
            acc = weighted_sum(weights, v, scaled(acc, rescale), PRECISION)
            total = total * rescale + tl.sum(weights, 1)
            maximum = higher
        mean = added(mean, scaled(acc, share / total))
        pairs //= 9
    out += i_image * out_b + i_head * out_h
    store_rows(out, o_rows, out_n, N, D, MAIN, REST, mean)
