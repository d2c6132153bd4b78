"""JPEG by libjpeg-turbo without a detour: the samples that Pillow gives, bit for bit, sooner. Needs no torch."""

import re
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import Image

from .limits import jpeg_segments

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_SCAN = 0xDA
# What libjpeg says of wrong pixels; not a broken profile, nor what cameras pad the end with.
_DAMAGE = re.compile(r"Corrupt JPEG data(?!: bad ICC|: \d{1,3} extraneous bytes before marker 0xd9)")
_STRAY = re.compile(r"\d extraneous bytes before marker 0x(?!d9)")


def jpeg_samples(image: Image.Image, file: BinaryIO) -> np.ndarray | None:
    """Samples `[H, W, C]` uint8 of a JPEG that Pillow has opened, as they lie in the file and in the mode of the image.

    None where Pillow is to read it: its size or kind is another to this decoder, or it is cut, which Pillow tells.

    Raises:
        ValueError: it is damaged; Pillow would read on.
    """
    file.seek(0)
    content = file.read()
    try:
        try:
            samples = _decoded(content, image)
        except ValueError as error:
            if not _STRAY.search(str(error)):
                raise
            samples = _decoded(_without_stray_bytes(content), image)
    except ValueError as error:
        if _DAMAGE.search(str(error)):
            raise
        return None
    if samples is None or image.mode != "CMYK":
        return samples
    return 255 - samples  # as Pillow takes them, by Adobe's convention


def _decoded(content: bytes, image: Image.Image) -> np.ndarray | None:
    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    return simplejpeg.decode_jpeg(content, _SPACES[image.mode]) if (width, height) == image.size else None


def _without_stray_bytes(content: bytes) -> bytes:
    """Without what cameras leave between the segments before the first scan, where it is no picture's.

    The decoder tells of them as of damage, of which it tells the first alone.
    """
    head = [content[:2]]
    for marker, start in jpeg_segments(content):
        if marker == _SCAN:
            return b"".join((*head, content[start - 4 :]))
        head.append(content[start - 4 : start - 2 + int.from_bytes(content[start - 2 : start], "big")])
    return content
