"""What Pillow's plugins read wrongly or pass over: put right or refused before they load. Needs no torch."""

from typing import Any

import numpy as np
from PIL import Image

from ..errors import ImageError
from .bmp import loaded_bmp
from .jpeg2000 import check_depth, embedded_profile
from .pixels import GREY_STEPS, with_info

_JXL_BYTES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 2, "F": 4}  # of a pixel


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
        if image.format == "GIF" and image.tell() == 0 and "transparency" not in image.info:
            return _with_uncovered(image)
        if image.format == "BMP":
            return loaded_bmp(image)
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


def _with_uncovered(image: Any) -> Image.Image:
    """What the first frame of a GIF leaves uncovered is clear, as viewers show it; Pillow takes the first colour."""
    covered = image.tile[0].extents
    image.load()
    if covered == (0, 0, *image.size):
        return image
    alpha = Image.new("L", image.size, 0)
    alpha.paste(255, covered)
    partial = image.convert("RGB")
    partial.putalpha(alpha)
    return with_info(partial, {})
