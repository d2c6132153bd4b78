"""Heat maps: upsampled scores, stretched to 0..1 for each prompt by itself."""

from torch import Tensor

from . import cpu
from .choice import find_decoder
from .reference import upsample
from .triton_heatmaps import triton_decode_heatmaps


def decode_heatmaps(scores: Tensor, size: tuple[int, int], *, backend: str | None = None) -> Tensor:
    """Upsample bilinearly, then min-max normalise each map as the authors of GEM do.

    Args:
        scores: cosine scores at patch resolution, `[P, h, w]`.
        size: output height and width in pixels.
        backend: `"triton"`, `"cpu"` for the native kernels, or another backend of the attention for torch's own
            operations; None is what `GEM_FAST_BACKEND` names, else Triton or the native kernels where they serve.

    Returns:
        `[P, H, W]` in 0..1; a map without any contrast is 0 everywhere.

    Raises:
        ValueError: `backend` does not exist or can't serve.
    """
    decoder = find_decoder(scores, size, backend)
    if decoder == "triton":
        return triton_decode_heatmaps(scores, size)
    if decoder == "native":
        return cpu.cpu_decode_heatmaps(scores, size)
    return stretched(upsample(scores, size))


def stretched(maps: Tensor) -> Tensor:
    """Each of the maps [P, H, W] min-max normalised, in place."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    contrast = high - low
    return maps.sub_(low).div_(contrast.masked_fill(contrast == 0, 1.0))
