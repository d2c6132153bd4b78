"""The launcher of the fused LayerNorm; Triton is imported on first use."""

import torch
from gem_fast.kernels.operators import register
from gem_fast.kernels.triton_host import is_compiled_for, on_device, why_no_triton
from gem_fast.kernels.triton_kernel import TritonKernel
from torch import Tensor

from .buffers import by_name, contiguous, inputs, outputs
from .normed import Normed

WIDEST = 8192  # channels that one program holds in registers
_KERNEL = TritonKernel("layer_norm.kernel", "layer_norm_kernel")


def why_not(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: object = None,
    branch: Tensor | None = None,
    head_width: object = None,
    aside: tuple[Tensor, Tensor] | None = None,
    front: Tensor | None = None,
) -> str | None:
    """The reason why the kernel can't serve these arguments, or None if it can."""
    if not 0 < x.shape[-1] <= WIDEST:
        return f"tokens must have at most {WIDEST} channels"
    if x.shape[0] > 65535:
        return "more than 65,535 images do not fit a launch grid"
    dtype, device, recorded = x.dtype, x.device, torch.is_grad_enabled()
    for each in (branch, front, *aside) if aside else (branch, front):
        if each is not None and each.dtype != dtype:
            return f"x is {dtype}, but not all that is added"
    for each in (weight, bias, branch, front, *aside) if aside else (weight, bias, branch, front):
        if each is None:
            continue
        if each.device != device:
            return f"x is on {device}, but what goes with it on {each.device}"
        if recorded and each.requires_grad:
            return "it has no backward, and what goes with x requires a gradient"
    return why_no_triton(x, "x")


def pays(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    branch: Tensor | None = None,
    head_width: int | None = None,
    *_: object,
) -> bool:
    """Whether it is the one to take where no backend is asked for: there is more to do than a LayerNorm."""
    return (branch is not None or head_width is not None) and is_compiled_for(x.device)


def triton_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """LayerNorm of x `[B, N, C]` and the norm of each of its tokens `[B, N]` in float32; x is read once.

    Raises:
        ValueError: `why_not` gives a reason.
    """
    reason = why_not(x, weight, bias)
    if reason:
        raise ValueError(f"Triton can't serve this: {reason}")
    found = fused_layer_norm(x, weight, bias, eps, head_width=1)
    assert found.scale is not None
    return found.y, found.scale


def fused_layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    branch: Tensor | None = None,
    head_width: int | None = None,
    aside: tuple[Tensor, Tensor] | None = None,
    front: Tensor | None = None,
) -> Normed:
    """`add_layer_norm` in one launch, where `why_not` is None."""
    scale = None if head_width is None else head_width**-0.5
    found = _OPERATOR(x, weight, bias, eps, branch, scale, *(aside or (None, None)), front)
    total, y, norms, other = by_name(found, branch is not None, scale is not None)
    return Normed(x if total is None else total, y, norms, other)


def _layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    branch: Tensor | None,
    norm_scale: float | None,
    aside: Tensor | None,
    aside_branch: Tensor | None,
    front: Tensor | None,
) -> list[Tensor]:
    found = outputs(x, weight, bias, eps, branch, norm_scale, aside, aside_branch, front)
    total, y, norms, other = by_name(found, branch is not None, norm_scale is not None)
    B, N, C = y.shape
    if y.numel():
        x, added = inputs(x, branch, y.shape)
        width = 1 << (C - 1).bit_length()
        with on_device(x.device):
            _KERNEL(
                (N, B, 1),
                (x, contiguous(front), added, contiguous(weight), contiguous(bias), total, y, norms,
                 contiguous(aside), contiguous(aside_branch), other),
                *x.stride()[:2], *added.stride()[:2], eps, norm_scale or 0.0,
                FIRST=0 if front is None else len(front), C=C, WIDTH=width, ADDS=branch is not None,
                NORMS=norms is not None, ASIDE=aside is not None, num_warps=min(8, max(1, width // 256)),
            )  # fmt: skip
    return found


_OPERATOR = register(
    "layer_norm_triton(Tensor x, Tensor weight, Tensor bias, float eps, Tensor? branch, float? norm_scale,"
    " Tensor? aside, Tensor? aside_branch, Tensor? front) -> Tensor[]",
    _layer_norm,
    outputs,
)
