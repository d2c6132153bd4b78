"""What TF32 products read in many programs, rounded once before all of them."""

import triton
import triton.language as tl

from .rows import load_rows, rounded, store_rows


@triton.jit
def round_kernel(
    projections,  # [B, N, P, H, D], strided
    out,  # [B, N, P, H, D], contiguous
    stride_b,
    stride_n,
    stride_p,
    stride_h: tl.constexpr,
    N,
    H,
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
):
    """A copy of float32 rows in the nearest TF32."""
    i_head, i_image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    heads = tl.num_programs(1)
    o_rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    projections += i_image * stride_b + (i_head // H).to(tl.int64) * stride_p + (i_head % H).to(tl.int64) * stride_h
    rows = rounded(load_rows(projections, o_rows, stride_n, N, D, MAIN, REST), "tf32")
    store_rows(out + (i_image * N * heads + i_head) * D, o_rows, heads * D, N, D, MAIN, REST, rows)
