"""JPEG by libjpeg-turbo without a detour: the samples that Pillow gives, bit for bit, sooner. Needs no torch."""

import re
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import Image

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
# What libjpeg says of wrong pixels; not a broken profile, nor what cameras pad the end with.
_DAMAGE = re.compile(r"Corrupt JPEG data(?!: bad ICC|: \d{1,3} extraneous bytes before marker 0xd9)")


def jpeg_samples(image: Image.Image, file: BinaryIO) -> np.ndarray | None:
    """Samples `[H, W, C]` uint8 of a JPEG that Pillow has opened, as they lie in the file and in the mode of the image.

    None where Pillow is to read it: its size or kind is another to this decoder, or it is cut, which Pillow tells.

    Raises:
        ValueError: it is damaged; Pillow would read on.
    """
    file.seek(0)
    content = file.read()
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        if (width, height) != image.size:
            return None
        samples = simplejpeg.decode_jpeg(content, _SPACES[image.mode])
    except ValueError as error:
        if _DAMAGE.search(str(error)):
            raise
        return None
    return 255 - samples if image.mode == "CMYK" else samples  # as Pillow takes them, by Adobe's convention
