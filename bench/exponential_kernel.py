"""The refinement kernel with a share of its exponentials computed by a polynomial: to be counted, not to be run.

`exponential.py` compiles it for GPUs that are not there; the engine never calls it.
"""

import triton
import triton.language as tl
from gem_fast.kernels.attention.triton.rows import (
    LOG2E,
    load_packed,
    scaled,
    similarity,
    squared_norm,
    store_rows,
    unit,
    weighted_sum,
    zero_rows,
)


@triton.jit
def refine_by_polynomial_kernel(
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
    EXPONENTIAL: tl.constexpr,  # PTX of 2^x for PACK elements
    CONSTRAINTS: tl.constexpr,
    PACK: tl.constexpr,
):
    """`refine_kernel`, but for its exponential."""
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
        exponent = similarity(query, key, PRECISION) * c - shift
        weights = tl.inline_asm_elementwise(
            EXPONENTIAL, CONSTRAINTS, [exponent], dtype=tl.float32, is_pure=True, pack=PACK
        )
        acc = weighted_sum(weights, key, acc, PRECISION)
        keys += KEYS * (MAIN + REST)
    o_rows = start + tl.arange(0, ROWS)
    acc = scaled(unit(acc), (o_rows < N).to(tl.float32))
    store_rows(refined + head, o_rows, MAIN + REST, padded, MAIN + REST, MAIN, REST, acc)
