"""Samples of any depth and Pillow's modes to 8-bit RGB, transparency on white. Needs no torch."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import ImageError
from .colour import to_srgb

# What lies outside a range by less than half an 8-bit step rounds to its end.
HALF_STEP = 0.5 / 255
_WHITES = (1, 255, 65_535)
# What Pillow multiplies the values of a grey PNG of few bits by, so that the largest is white.
GREY_STEPS = {"1": 255, "L;2": 85, "L;4": 17}


def from_integers(values: np.ndarray, bits: int) -> np.ndarray:
    """Integers of so many bits, the sign's included, to uint8: the largest is white.

    Raises:
        ImageError: a value is below 0.
    """
    if np.issubdtype(values.dtype, np.signedinteger):
        if values.min() < 0:
            raise ImageError(f"an image of signed integers must not be below 0, got {values.min():,}..{values.max():,}")
        values = values.astype(f"u{values.dtype.itemsize}")
        bits -= 1
    if bits == 8:
        return values.astype(np.uint8)
    if bits > 16:  # what lies below the upper 16 bits is far less than an 8-bit step
        values, bits = (values >> (bits - 16)).astype(np.uint16), 16
    table = np.round(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
    return table[values]


def from_floats(values: np.ndarray, colours: int | None = None, whites: tuple[int, ...] = _WHITES) -> np.ndarray:
    """Floats to uint8: the 99.9th percentile of the first `colours` channels tells which of `whites` is white.

    Raises:
        ImageError: a value is below 0, not finite, or the percentile above 65,535.
    """
    values = values.astype(np.float32) if values.dtype == np.float16 else values
    shown = values[..., :colours] if colours else values
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("a floating image must be finite, this one has NaN or infinite values")
    most = float(np.percentile(shown, 99.9))
    white = next((white for white in whites if most <= white * (1 + HALF_STEP)), None)
    if white is None or low < -white * HALF_STEP:
        ranges = " or ".join(f"0..{white:,}" for white in whites)
        raise ImageError(f"the image's values must lie in {ranges}, got {low:g}..{high:g}")
    scaled = values * np.float32(255 / white)  # large images: changed in place from here on
    np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
    return scaled.astype(np.uint8)


@dataclass(frozen=True)
class Declared:
    """What a Pillow image's file says of its samples; 0 bits where it says nothing."""

    bits: int
    signed: bool
    inverted: bool


def _declared(image: Image.Image) -> Declared:
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:
        signed = tags.get(339, (1,))[0] == 2
        return Declared(tags.get(258, (1,))[0], signed, tags.get(262) == 0)
    # Older Pillow reads 16-bit PNG as 32-bit integers.
    return Declared(16 if image.mode.startswith("I;16") or image.format == "PNG" else 0, False, False)


def to_8_bit(image: Image.Image) -> Image.Image:
    """Deep grey to 8 bits; other modes as they are."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    declared, values = _declared(image), np.asarray(image)
    if image.mode == "F":
        grey = from_floats(values)
    elif declared.bits:
        width = 16 if declared.bits <= 16 else 32
        grey = from_integers(values.astype(f"{'i' if declared.signed else 'u'}{width // 8}"), declared.bits)
    else:
        grey = from_floats(values, whites=_WHITES[1:])
    deep = Image.fromarray(255 - grey if declared.inverted else grey)
    key = image.info.get("transparency")
    if isinstance(key, int):
        deep.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return with_info(deep, {"icc_profile": image.info.get("icc_profile")})


def with_info(image: Image.Image, info: dict) -> Image.Image:
    image.info = info
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: deep grey to 8 bits, colours to sRGB by the embedded profile, transparency on white.

    Raises:
        ImageError: it has no pixels, or values that no rule covers. Whatever Pillow raises for damaged files.
    """
    if 0 in image.size:
        raise ImageError(f"an image must have pixels, got {image.width}×{image.height}")
    image = to_8_bit(image)
    profile = image.info.get("icc_profile")
    if not image.has_transparency_data:
        return to_srgb(image, profile)
    grey = image.mode in ("L", "LA", "La")
    image = image.convert("LA") if image.mode == "La" else image
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(to_srgb(image.getchannel("R") if grey else image.convert("RGB"), profile), mask=image.getchannel("A"))
    return white
