"""Images as people have them, to RGB in memory. Needs no torch."""

from ..errors import ImageError
from .formats import EXTENSIONS, sniff
from .limits import MAX_PIXELS, MAX_WINDOWED_PIXELS
from .reading import ImageLike, as_batch, decode_image, decode_pixels, is_tensor, load_image, load_pixels, read_image

__all__ = [
    "EXTENSIONS",
    "MAX_PIXELS",
    "MAX_WINDOWED_PIXELS",
    "ImageError",
    "ImageLike",
    "as_batch",
    "decode_image",
    "decode_pixels",
    "is_tensor",
    "load_image",
    "load_pixels",
    "read_image",
    "sniff",
]
