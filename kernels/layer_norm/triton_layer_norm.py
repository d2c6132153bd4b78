"""The launcher of the fused LayerNorm; Triton is imported on first use."""

import torch
from gem_fast.kernels.triton_host import is_compiled_for, on_device, why_no_triton
from torch import Tensor

WIDEST = 8192  # channels that one program holds in registers


def why_not(x: Tensor, weight: Tensor, bias: Tensor, *_: object) -> str | None:
    """The reason why `triton_layer_norm` can't serve these arguments, or None if it can."""
    if x.stride(-1) != 1 or not 0 < x.shape[-1] <= WIDEST:
        return f"tokens must be contiguous and of at most {WIDEST} channels"
    if x.shape[0] > 65535:
        return "more than 65,535 images do not fit a launch grid"
    if weight.device != x.device or bias.device != x.device:
        return f"x is on {x.device}, but weight is on {weight.device} and bias on {bias.device}"
    if torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad):
        return "it has no backward, and weight or bias requires a gradient"
    return why_no_triton(x, "x")


def pays(x: Tensor, *_: object) -> bool:
    """Whether it is the one to take where no backend is asked for."""
    return is_compiled_for(x.device)


def triton_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """LayerNorm of x `[B, N, C]` and the norm of each of its tokens `[B, N]` in float32; x is read once.

    Raises:
        ValueError: `why_not` gives a reason.
    """
    reason = why_not(x, weight, bias)
    if reason:
        raise ValueError(f"Triton can't serve this: {reason}")
    return torch.ops.gem_fast.layer_norm_and_norms_triton(x, weight, bias, eps)


@torch.library.custom_op(
    "gem_fast::layer_norm_and_norms_triton",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor)",
)
def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
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


@_layer_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[:2], dtype=torch.float32)
