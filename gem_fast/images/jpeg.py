"""JPEG by libjpeg-turbo without a detour: the pixels that Pillow gives, bit for bit, sooner. Needs no torch."""

import os
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import Image

from .colour import stays

_LARGEST = 1 << 28  # bytes that are held at once


def jpeg_pixels(image: Image.Image, file: BinaryIO) -> np.ndarray | None:
    """Pixels `[H, W, 3]` in sRGB of a JPEG that Pillow has opened, as they lie in the file.

    None where Pillow is to read it: its pixels are grey, CMYK, or of a colour space of their own; or it is damaged.
    """
    if image.mode != "RGB" or not stays(image.info.get("icc_profile"), "RGB"):
        return None
    if file.seek(0, os.SEEK_END) > _LARGEST:
        return None
    file.seek(0)
    content = file.read()
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        return simplejpeg.decode_jpeg(content) if (width, height) == image.size else None
    except ValueError:
        return None
