"""The entry to LayerNorm with the adaptive temperature (GEM, Eq. 4), and its plain form."""

import torch
import torch.nn.functional as F
from torch import Tensor


def layer_norm_and_temperature(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, head_width: int
) -> tuple[Tensor, Tensor]:
    """`y = LayerNorm(x)` and `c = mean_n |y_n| / sqrt(head_width)`, the inverse temperature of each image.

    On a CUDA or ROCm device one kernel reads x once for both; elsewhere torch computes them one after the other.

    Args:
        x: tokens `[B, N, C]`, floating, C contiguous.
        weight, bias: of the LayerNorm, `[C]`.
        eps: of the LayerNorm.
        head_width: D, channels of a head.

    Returns:
        y `[B, N, C]` in the type of x, and c `[B]`, float32 or wider.

    Raises:
        ValueError: x is not `[B, N, C]`, or weight and bias are not `[C]`.
    """
    if x.ndim != 3 or not x.is_floating_point():
        raise ValueError(f"x must be floating [B, N, C], got {x.dtype} {list(x.shape)}")
    if weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        raise ValueError(f"weight and bias must be [{x.shape[-1]}], got {list(weight.shape)} and {list(bias.shape)}")
    from .triton_layer_norm import triton_layer_norm, why_not

    if why_not(x):
        y, norms = reference(x, weight, bias, eps)
    else:
        y, norms = triton_layer_norm(x, weight, bias, eps)
    return y, norms.mean(-1) * head_width**-0.5


def reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """LayerNorm of x `[B, N, C]` and the norm of each of its tokens `[B, N]`, float32 or wider."""
    y = F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return y, torch.linalg.vector_norm(y, dim=-1, dtype=torch.promote_types(y.dtype, torch.float32))
