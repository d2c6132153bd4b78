"""The launcher of the fused LayerNorm; Triton is imported on first use."""

import torch
from gem_fast.kernels.triton_host import on_device, why_no_triton
from torch import Tensor

WIDEST = 8192  # channels that one program holds in registers


def why_not(x: Tensor) -> str | None:
    """The reason why `triton_layer_norm` can't serve x, or None if it can."""
    if x.stride(-1) != 1 or x.shape[-1] > WIDEST:
        return f"tokens must be contiguous and of at most {WIDEST} channels"
    return why_no_triton(x, "x")


def triton_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """LayerNorm of x `[B, N, C]` and the norm of each of its tokens `[B, N]` in float32; x is read once.

    Raises:
        ValueError: `why_not` gives a reason.
    """
    reason = why_not(x)
    if reason:
        raise ValueError(f"Triton can't serve this: {reason}")
    from .kernel import layer_norm_kernel

    B, N, C = x.shape
    y = torch.empty(B, N, C, dtype=x.dtype, device=x.device)
    norms = torch.empty(B, N, dtype=torch.float32, device=x.device)
    if x.numel():
        width = 1 << (C - 1).bit_length()
        with on_device(x.device):
            layer_norm_kernel[(N, B)](
                x, weight.contiguous(), bias.contiguous(), y, norms, x.stride(0), x.stride(1), eps,
                C=C, WIDTH=width, num_warps=min(8, max(1, width // 256)),
            )  # fmt: skip
    return y, norms
