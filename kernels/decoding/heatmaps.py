"""Heat maps: upsampled scores, stretched to 0..1 for each prompt by itself."""

import torch
from gem_fast.kernels.backends import Backend, operation
from gem_fast.kernels.first_use import random_tensors
from gem_fast.kernels.gradients import wants_gradient
from torch import Tensor

from . import cpu, triton_limits
from .reference import upsample
from .triton_heatmaps import triton_decode_heatmaps


def decode_heatmaps(scores: Tensor, size: tuple[int, int], *, backend: str | None = None) -> Tensor:
    """Upsample bilinearly, then min-max normalise each map as the authors of GEM do.

    Args:
        scores: cosine scores at patch resolution, `[P, h, w]`.
        size: output height and width in pixels.
        backend: `"triton"`, `"cpu"` for the native kernels, or `"sdpa"` for torch's own operations; None is what
            `GEM_FAST_BACKEND` names, else Triton or the native kernels where they serve.

    Returns:
        `[P, H, W]` in 0..1; a map without any contrast is 0 everywhere.

    Raises:
        ValueError: scores have another shape, or `backend` does not exist or can't serve.
    """
    if scores.ndim != 3 or 0 in scores.shape[1:]:
        raise ValueError(f"scores must have the shape [P, h, w], h and w not 0, got {list(scores.shape)}")
    result: Tensor = OPERATION(backend, scores, size)
    return result


def stretched_whole(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """`decode_heatmaps` in torch, on any device."""
    return stretched(upsample(scores, size))


def stretched(maps: Tensor) -> Tensor:
    """Each of the maps [P, H, W] min-max normalised, in place where no gradient is wanted."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    contrast = high - low
    above = maps - low if wants_gradient(maps) else maps.sub_(low)
    return above.div_(contrast.masked_fill(contrast == 0, 1.0))


OPERATION = operation(
    "decode_heatmaps",
    Backend("cpu", cpu.cpu_decode_heatmaps, lambda scores, size: cpu.why_not(scores, torch.float32)),
    Backend(
        "triton",
        triton_decode_heatmaps,
        triton_limits.why_not,
        triton_limits.pays,
        trials=lambda *where: [(*random_tensors(*where, (5, 7, 6)), (9, 67))],
    ),
    Backend("sdpa", stretched_whole),
    example=lambda dtype, device: (torch.empty(2, 28, 28, dtype=dtype, device=device), (448, 448)),
)
