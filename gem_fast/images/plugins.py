"""What Pillow's plugins read wrongly or pass over: put right or refused before they load. Needs no torch."""

import struct
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImagePalette

from ..errors import ImageError
from .colour import MAX_PROFILE
from .jpeg2000 import check_depth, embedded_profile
from .pixels import GREY_STEPS, with_info

_JXL_BYTES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 2, "F": 4}  # of a pixel
_BMP_EMBEDDED = b"DEBM"  # LCS_PROFILE_EMBEDDED; a profile that is linked is none of the file
_BMP_RAW = {1: "P;1", 4: "P;4", 8: "P"}


def loaded(image: Any) -> Image.Image:
    """A Pillow image with its samples in memory; where they are there already, they are what they are.

    Raises:
        ImageError: its plugin would read its samples wrongly. Whatever Pillow raises for damaged files.
    """
    if image.format == "JXL":
        _check_jxl(image)
    if getattr(image, "tile", None):
        if image.format == "PNG" and isinstance(image.info.get("transparency"), int | tuple):
            return _with_transparency(image)
        if image.format == "BMP":
            _restore_palette(image)
            image.info["icc_profile"] = _bmp_profile(image.fp)
        if image.format == "JPEG2000":
            check_depth(image, image.fp)
            image.info["icc_profile"] = embedded_profile(image.fp)
    image.load()
    return image


def _check_jxl(image: Any) -> None:
    """Its plugin gives grey with alpha in 16 bits or floats, and then takes each byte for a sample."""
    if len(image._data) != image.width * image.height * _JXL_BYTES[image.mode]:
        raise ImageError("a JPEG XL of deep grey with alpha can't be read: right would be 8 bits, or a PNG")


def _with_transparency(image: Any) -> Image.Image:
    """A PNG with a transparent value, which Pillow leaves in the file's bits."""
    key, kind = image.info["transparency"], image.tile[0][3]
    if kind == "RGB;16B":
        return _with_deep_transparency(image)
    image.info["transparency"] = key * GREY_STEPS.get(kind, 1) if isinstance(key, int) else key
    image.load()
    return image


def _with_deep_transparency(image: Any) -> Image.Image:
    """The upper bytes with alpha: other colours may share those of the transparent one, so that the lower count."""
    image.fp.seek(0)
    lower = Image.open(image.fp, formats=("PNG",))
    lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
    lower.load()
    image.load()
    samples = np.asarray(image).astype(np.uint16) << 8 | np.asarray(lower)
    clear = (samples == image.info["transparency"]).all(axis=2)
    keyed = image.copy()
    keyed.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
    return with_info(keyed, {"icc_profile": image.info.get("icc_profile")})


def _restore_palette(image: Any) -> None:
    """Where Pillow takes a BMP's palette for none, it forgets how many bits a pixel has."""
    image.fp.seek(14)
    head = image.fp.read(16)
    bits = int.from_bytes(head[10:12] if head[0] == 12 else head[14:16], "little")
    if bits != {"1": 1, "L": 8}.get(image.mode, bits):
        levels = (0, 255) if image.mode == "1" else range(2**bits)
        image._mode, image.palette = "P", ImagePalette.raw("RGB", bytes(level for level in levels for _ in "RGB"))
        image.tile = [tile._replace(args=(_BMP_RAW[bits], *tile.args[1:])) for tile in image.tile]


def _bmp_profile(file: BinaryIO) -> bytes | None:
    """The ICC profile that a BMP has embedded, as browsers take it; None for none. Source: BITMAPV5HEADER."""
    file.seek(14)
    header = file.read(124)
    if int.from_bytes(header[:4], "little") != 124 or header[56:60] != _BMP_EMBEDDED:
        return None
    start, size = struct.unpack_from("<II", header, 112)
    file.seek(14 + start)
    return file.read(min(size, MAX_PROFILE + 1))
