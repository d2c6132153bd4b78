"""Device code of LayerNorm with the norm of what it returns."""

import triton
import triton.language as tl


@triton.jit
def layer_norm_kernel(
    x,  # [B, N, C], C contiguous
    weight,  # [C]
    bias,  # [C]
    y,  # [B, N, C], contiguous
    norms,  # [B, N]
    stride_b,
    stride_n,
    eps,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """y = (x - mean) / sqrt(variance + eps) · weight + bias, and |y|, one token a program."""
    i_token, i_image = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    token = i_image * tl.num_programs(0) + i_token
    column = tl.arange(0, WIDTH)
    inside = column < C
    row = tl.load(x + i_image * stride_b + i_token * stride_n + column, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, row - tl.sum(row) / C, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred) / C + eps)
    w = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    result = (centred * scale * w + b).to(y.dtype.element_ty)
    tl.store(y + token * C + column, result, mask=inside)
    stored = result.to(tl.float32)
    tl.store(norms + token, tl.sqrt(tl.sum(stored * stored)))
