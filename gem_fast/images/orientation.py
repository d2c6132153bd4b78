"""Which way up a picture is, by its EXIF or XMP metadata. Needs no torch."""

import re
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, TiffImagePlugin

from .tiff.tags import read_tags

ORIENTATION_TAG = 0x0112
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_TURNS: dict[Image.Transpose, Callable[[np.ndarray], np.ndarray]] = {
    Image.Transpose.FLIP_LEFT_RIGHT: np.fliplr,
    Image.Transpose.ROTATE_180: lambda pixels: pixels[::-1, ::-1],
    Image.Transpose.FLIP_TOP_BOTTOM: np.flipud,
    Image.Transpose.TRANSPOSE: lambda pixels: pixels.swapaxes(0, 1),
    Image.Transpose.ROTATE_270: lambda pixels: pixels[::-1].swapaxes(0, 1),
    Image.Transpose.TRANSVERSE: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    Image.Transpose.ROTATE_90: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}


def orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts; 1, upright, where metadata are missing or damaged: they say nothing about the picture.

    Pillow's own reader loads every tag, and many tags that name the same bytes fill any memory.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return 1  # turned while it was loaded
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1  # turned by its decoder, and its EXIF is not to count; a JPEG inside is as it was
    info = image.info
    try:
        exif = info.get("exif") or bytes.fromhex("".join(info.get("Raw profile type exif", "").split("\n")[3:]))
        start = 6 if exif[:6] == b"Exif\0\0" else 0
        if exif:
            return read_tags(BytesIO(exif[start:]), frozenset({ORIENTATION_TAG})).one(ORIENTATION_TAG)
    except Exception:
        pass
    if image.format in ("AVIF", "HEIF"):
        return 1  # what the format says, its decoder gives as EXIF; XMP is not to count
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp", b"")
    found = _XMP.search(xmp.encode(errors="replace") if isinstance(xmp, str) else bytes(xmp))
    return int(found[1]) if found else 1


def turned_pixels(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The same of pixels `[H, W, 3]`."""
    method = _UPRIGHT.get(orientation)
    if method is None:
        return pixels
    return np.ascontiguousarray(_TURNS[method](pixels))


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Turned and mirrored to be upright."""
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)
