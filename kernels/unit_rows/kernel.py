"""Device code of rows of norm 1."""

import triton
import triton.language as tl


@triton.jit
def unit_rows_kernel(
    x,  # [rows, C], contiguous
    embedding,  # [rows, C], float32
    C: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """embedding = x / max(|x|, 1e-12), one row a program."""
    column = tl.arange(0, WIDTH)
    inside = column < C
    at = tl.program_id(0).to(tl.int64) * C + column
    row = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(embedding + at, row / tl.maximum(tl.sqrt(tl.sum(row * row)), 1e-12), mask=inside)
