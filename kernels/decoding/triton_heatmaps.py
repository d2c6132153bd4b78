"""The launchers of heat maps on a GPU; Triton is imported on first use."""

import torch
from gem_fast.kernels.triton_host import on_device
from torch import Tensor

from .triton_limits import why_not

CORNERS, PIXELS = 32, 512  # that a program takes at a time: of each side of a tile, of a row


def triton_decode_heatmaps(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Heat maps in two launches, with the contract of `decode_heatmaps`: scores [P, h, w] to [P, H, W] in their type.

    Beyond its output it holds two numbers a prompt.

    Raises:
        ValueError: scores have another shape, or `why_not` gives a reason.
    """
    if scores.ndim != 3 or 0 in scores.shape[1:]:
        raise ValueError(f"scores must have the shape [P, h, w], h and w not 0, got {list(scores.shape)}")
    reason = why_not(scores, size)
    if reason:
        raise ValueError(f"Triton can't serve this: {reason}")
    return torch.ops.gem_fast.decode_heatmaps_triton(scores, *size)


@torch.library.custom_op(
    "gem_fast::decode_heatmaps_triton",
    mutates_args=(),
    schema="(Tensor scores, SymInt height, SymInt width) -> Tensor",
)
def _heatmaps(scores: Tensor, height: int, width: int) -> Tensor:
    from .heatmaps_kernel import extremes_kernel, heatmaps_kernel

    P, h, w = scores.shape
    heatmaps = torch.empty(P, height, width, dtype=scores.dtype, device=scores.device)
    if heatmaps.numel():
        scores = scores.contiguous()
        extremes = torch.empty(P, 2, dtype=torch.float32, device=scores.device)
        shape = (h, w, height, width)
        with on_device(scores.device):
            extremes_kernel[(P,)](scores, extremes, *shape, PIXELS=CORNERS, num_warps=4)
            lines = (P * height, -(-width // PIXELS))
            heatmaps_kernel[lines](scores, extremes, heatmaps, *shape, PIXELS=PIXELS, num_warps=4)
    return heatmaps


@_heatmaps.register_fake
def _(scores: Tensor, height: int, width: int) -> Tensor:
    return scores.new_empty(scores.shape[0], height, width)
