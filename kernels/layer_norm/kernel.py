"""Device code of LayerNorm with the sum before it and the norm of what it returns."""

import triton
import triton.language as tl


@triton.jit
def layer_norm_kernel(
    x,  # [B, N - FIRST, C], C contiguous
    front,  # [FIRST, C], the tokens before those of x, contiguous
    branch,  # [B, N, C], C contiguous
    weight,  # [C]
    bias,  # [C]
    total,  # [B, N, C], contiguous
    y,  # [B, N, C], contiguous
    norms,  # [B, N]
    aside,  # [B, N, C], contiguous
    aside_branch,  # the same
    aside_total,  # the same
    stride_b,
    stride_n,
    branch_b,
    branch_n,
    eps,
    norm_scale,
    FIRST: tl.constexpr,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    ADDS: tl.constexpr,
    NORMS: tl.constexpr,
    ASIDE: tl.constexpr,
):
    """total = [front, x] + branch, y = (total - mean) / sqrt(variance + eps) · weight + bias, norms = |y| · norm_scale.

    One token a program; what is normalised is the total as it is stored. Beside it, aside_total = aside + aside_branch.
    """
    i_token, i_image = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    token = i_image * tl.num_programs(0) + i_token
    column = tl.arange(0, WIDTH)
    inside = column < C
    own = x + i_image * stride_b + (i_token - FIRST) * stride_n + column
    held = tl.where(i_token < FIRST, 0, C)  # channels of this token that lie in x
    row = tl.load(own, mask=column < held, other=0.0).to(tl.float32)
    if FIRST > 0:
        row += tl.load(front + i_token * C + column, mask=column < C - held, other=0.0).to(tl.float32)
    if ADDS:
        added = tl.load(branch + i_image * branch_b + i_token * branch_n + column, mask=inside, other=0.0)
        row = (row + added.to(tl.float32)).to(total.dtype.element_ty)
        tl.store(total + token * C + column, row, mask=inside)
        row = row.to(tl.float32)
    centred = tl.where(inside, row - tl.sum(row) / C, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred) / C + eps)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    result = (centred * scale * w + b).to(y.dtype.element_ty)
    tl.store(y + token * C + column, result, mask=inside)
    if NORMS:
        stored = result.to(tl.float32)
        tl.store(norms + token, tl.sqrt(tl.sum(stored * stored)) * norm_scale)
    if ASIDE:
        sides = tl.load(aside + token * C + column, mask=inside, other=0.0).to(tl.float32)
        sides += tl.load(aside_branch + token * C + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(aside_total + token * C + column, sides.to(aside_total.dtype.element_ty), mask=inside)
