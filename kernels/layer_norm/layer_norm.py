"""The entry to LayerNorm with the adaptive temperature (GEM, Eq. 4), and its plain form."""

import torch
import torch.nn.functional as F
from gem_fast.kernels.backends import Backend, operation
from torch import Tensor

from .triton_layer_norm import pays, triton_layer_norm, why_not


def layer_norm_and_temperature(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, head_width: int, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """`y = LayerNorm(x)` and `c = mean_n |y_n| / sqrt(head_width)`, the inverse temperature of each image (Eq. 4).

    With Triton one kernel reads x once for both; else torch computes them one after the other.

    Args:
        x: tokens `[B, N, C]`, floating.
        weight, bias: of the LayerNorm, `[C]`.
        eps: of the LayerNorm.
        head_width: D, channels of a head.
        backend: `"triton"`, or `"sdpa"` for torch's own operations; None is what `GEM_FAST_BACKEND` names, else
            Triton on a GPU where it serves.

    Returns:
        y `[B, N, C]` in the type of x, and c `[B]`, float32 or wider.

    Raises:
        ValueError: x is not `[B, N, C]`, weight and bias are not `[C]`, or `backend` does not exist or can't serve.
    """
    if x.ndim != 3 or not x.is_floating_point():
        raise ValueError(f"x must be floating [B, N, C], got {x.dtype} {list(x.shape)}")
    if weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        raise ValueError(f"weight and bias must be [{x.shape[-1]}], got {list(weight.shape)} and {list(bias.shape)}")
    y, norms = OPERATION(backend, x, weight, bias, eps)
    return y, norms.mean(-1) * head_width**-0.5


def reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """LayerNorm of x `[B, N, C]` and the norm of each of its tokens `[B, N]`, float32 or wider."""
    y = F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return y, torch.linalg.vector_norm(y, dim=-1, dtype=torch.promote_types(y.dtype, torch.float32))


OPERATION = operation(
    "layer_norm_and_temperature",
    Backend("triton", triton_layer_norm, why_not, pays),
    Backend("sdpa", reference),
    example=lambda dtype, device: (
        torch.empty(1, 785, 768, dtype=dtype, device=device),
        torch.empty(768, dtype=dtype, device=device),
        torch.empty(768, dtype=dtype, device=device),
        1e-5,
    ),
)
