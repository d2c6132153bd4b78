"""The launchers of heat maps on a GPU; Triton is imported on first use."""

import torch
from gem_fast.kernels.operators import register
from gem_fast.kernels.triton_host import on_device
from gem_fast.kernels.triton_kernel import TritonKernel
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
        shape = (h, w, height, width)
        with on_device(scores.device):
            _EXTREMES((P, 1, 1), (scores, extremes), *shape, PIXELS=CORNERS, num_warps=4)
            lines = (P * height, -(-width // PIXELS), 1)
            _HEATMAPS(lines, (scores, extremes, heatmaps), *shape, PIXELS=PIXELS, num_warps=4)
    return heatmaps


def _fake(scores: Tensor, height: int, width: int) -> Tensor:
    return scores.new_empty(scores.shape[0], height, width)


_OPERATOR = register("decode_heatmaps_triton(Tensor scores, SymInt height, SymInt width) -> Tensor", _heatmaps, _fake)
