"""The launcher of the fused LayerNorm; Triton is imported on first use."""

import torch
from gem_fast.kernels.operators import register
from gem_fast.kernels.triton_host import is_compiled_for, on_device, why_no_triton
from gem_fast.kernels.triton_kernel import Launch, TritonKernel, remembered
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
    dtype, device = x.dtype, x.device
    for each in (branch, front, *aside) if aside else (branch, front):
        if each is not None and each.dtype != dtype:
            return f"x is {dtype}, but not all that is added"
    for each in (weight, bias, branch, front, *aside) if aside else (weight, bias, branch, front):
        if each is not None and each.device != device:
            return f"x is on {device}, but what goes with it on {each.device}"
    return why_no_triton(x, "x", weight, bias, branch, front, *(aside or ()))


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
    if y.numel():
        x, added = inputs(x, branch, y.shape)
        first, asked = 0 if front is None else len(front), (branch is not None, norms is not None, aside is not None)
        types = x.dtype, weight.dtype, bias.dtype
        launch = _launch(x.device, types, y.shape, x.stride(), added.stride(), eps, norm_scale or 0.0, first, asked)
        with on_device(x.device):
            launch(
                x, contiguous(front), added, contiguous(weight), contiguous(bias), total, y, norms,
                contiguous(aside), contiguous(aside_branch), other,
            )  # fmt: skip
    return found


@remembered
def _launch(
    device: torch.device,
    types: tuple[torch.dtype, ...],
    shape: tuple[int, int, int],
    strides: tuple[int, ...],
    branch_strides: tuple[int, ...],
    eps: float,
    norm_scale: float,
    first: int,
    asked: tuple[bool, bool, bool],
) -> Launch:
    """For tokens, weights and biases of these types, and an output of this shape; `asked` for the sum with a branch,
    norms, and the sum aside."""
    B, N, C = shape
    width, (adds, norms, aside) = 1 << (C - 1).bit_length(), asked
    return Launch(
        _KERNEL, (N, B, 1), *strides[:2], *branch_strides[:2], eps, norm_scale, FIRST=first, C=C, WIDTH=width,
        ADDS=adds, NORMS=norms, ASIDE=aside, num_warps=min(8, max(1, width // 256)),
    )  # fmt: skip


_OPERATOR = register(
    "layer_norm_triton(Tensor x, Tensor weight, Tensor bias, float eps, Tensor? branch, float? norm_scale,"
    " Tensor? aside, Tensor? aside_branch, Tensor? front) -> Tensor[]",
    _layer_norm,
    outputs,
)
