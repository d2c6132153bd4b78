"""Heat maps: upsampled scores, stretched to 0..1 for each prompt by itself."""

import torch
from torch import Tensor

from . import cpu
from .reference import upsample


def decode_heatmaps(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample bilinearly, then min-max normalise each map as the authors of GEM do.

    Args:
        scores: cosine scores at patch resolution, `[P, h, w]`.
        size: output height and width in pixels.

    Returns:
        `[P, H, W]` in 0..1; a map without any contrast is 0 everywhere.
    """
    if cpu.why_not(scores, torch.float32) is None:
        return cpu.cpu_decode_heatmaps(scores, size)
    return stretched(upsample(scores, size))


def stretched(maps: Tensor) -> Tensor:
    """Each of the maps [P, H, W] min-max normalised, in place."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    contrast = high - low
    return maps.sub_(low).div_(contrast.masked_fill(contrast == 0, 1.0))
