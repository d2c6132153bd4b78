"""Heat maps: upsampled scores, stretched to 0..1 for each prompt by itself."""

from torch import Tensor

from .choice import find_decoder
from .reference import upsample
from .triton_heatmaps import triton_decode_heatmaps


def decode_heatmaps(scores: Tensor, size: tuple[int, int], *, backend: str | None = None) -> Tensor:
    """Upsample bilinearly, then min-max normalise each map as the authors of GEM do.

    Args:
        scores: cosine scores at patch resolution, `[P, h, w]`.
        size: output height and width in pixels.
        backend: `"triton"`, or another backend of the attention for torch's own operations; None is what
            `GEM_FAST_BACKEND` names, else Triton on a GPU where it serves.

    Returns:
        `[P, H, W]` in 0..1; a map without any contrast is 0 everywhere.

    Raises:
        ValueError: `backend` does not exist or can't serve.
    """
    if find_decoder(scores, size, backend) == "triton":
        return triton_decode_heatmaps(scores, size)
    maps = upsample(scores, size)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    contrast = high - low
    return maps.sub_(low).div_(contrast.masked_fill(contrast == 0, 1.0))
