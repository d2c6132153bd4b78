"""The launchers of heat maps on a GPU; Triton is imported on first use."""

import torch
from gem_fast.kernels.operators import register
from gem_fast.kernels.triton_host import on_device
from gem_fast.kernels.triton_kernel import Launch, TritonKernel, remembered
from torch import Tensor

from .triton_limits import why_not

CORNERS, PIXELS = 32, 512  # that a program takes at a time: of each side of a tile, of a row
_EXTREMES = TritonKernel("decoding.heatmaps_kernel", "extremes_kernel")
_HEATMAPS = TritonKernel("decoding.heatmaps_kernel", "heatmaps_kernel")


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
    found: Tensor = _OPERATOR(scores, *size)
    return found


def _heatmaps(scores: Tensor, height: int, width: int) -> Tensor:
    P, h, w = scores.shape
    heatmaps = torch.empty(P, height, width, dtype=scores.dtype, device=scores.device)
    if heatmaps.numel():
        scores = scores.contiguous()
        extremes = torch.empty(P, 2, dtype=torch.float32, device=scores.device)
        of_extremes, of_maps = _launches(scores.device, scores.dtype, (P, h, w), (height, width))
        with on_device(scores.device):
            of_extremes(scores, extremes)
            of_maps(scores, extremes, heatmaps)
    return heatmaps


@remembered
def _launches(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int], size: tuple[int, int]
) -> tuple[Launch, Launch]:
    (P, h, w), (height, width) = shape, size
    lines = (P * height, -(-width // PIXELS), 1)
    return (
        Launch(_EXTREMES, (P, 1, 1), h, w, *size, PIXELS=CORNERS, num_warps=4),
        Launch(_HEATMAPS, lines, h, w, *size, PIXELS=PIXELS, num_warps=4),
    )


def _fake(scores: Tensor, height: int, width: int) -> Tensor:
    return scores.new_empty(scores.shape[0], height, width)


_OPERATOR = register("decode_heatmaps_triton(Tensor scores, SymInt height, SymInt width) -> Tensor", _heatmaps, _fake)
