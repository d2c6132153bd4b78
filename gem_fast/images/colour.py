"""Embedded ICC profiles: colours to sRGB. Needs no torch."""

from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
MAX_PROFILE = 1 << 22  # bytes; printers' largest are about half of it


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB of an image without alpha, by its profile with the perceptual intent.

    Pixels stay as they are under a profile that is sRGB to within 1 of 255. A profile that is broken, or of another
    colour space than the image, is ignored, as viewers do: the pixels are then what they would be without.
    """
    if image.mode == "LAB":
        transform = _transform(b"", "LAB")
    else:
        image = image if image.mode in _SPACES else image.convert("L" if image.mode == "1" else "RGB")
        transform = _by_profile(profile, image.mode)
    if transform is None:
        return image.convert("RGB")
    converted = transform.apply(image)
    converted.info.pop("icc_profile", None)
    return converted


def stays(profile: bytes | None, mode: str) -> bool:
    """Whether pixels of a mode are sRGB already under a profile."""
    return _by_profile(profile, mode) is None


def _by_profile(profile: bytes | None, mode: str) -> "ImageCmsTransform | None":
    return _transform(profile, mode) if profile and len(profile) <= MAX_PROFILE else None


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> "ImageCmsTransform | None":
    """From a mode to sRGB; None where pixels are to stay. Cached, since a folder's photos share a profile."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile) if profile else ImageCms.createProfile("LAB"))
        if profile and (source.profile.xcolor_space != _SPACES[mode] or _is_flat(source.profile)):
            return None
        # Else a grey curve is sampled: 10 of 255 off where it is steep.
        flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", ImageCms.Intent.PERCEPTUAL, flags)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if mode in ("RGB", "L") and _changes_nothing(transform, mode) else transform


def _is_flat(profile: Any) -> bool:
    """Whether its primaries span no space of colours, which the library turns into noise."""
    primaries = (profile.red_colorant, profile.green_colorant, profile.blue_colorant)
    return all(primaries) and abs(np.linalg.det([xyz for xyz, _ in primaries])) < 1e-3  # sRGB's is 0.1


def _changes_nothing(transform: "ImageCmsTransform", mode: str) -> bool:
    """Whether a grid over all colours comes out as it went in, to within 1."""
    levels = np.linspace(0, 255, 256 if mode == "L" else 18).round().astype(np.uint8)
    grid = levels[None] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    probe = Image.fromarray(np.ascontiguousarray(grid))
    after, before = (np.asarray(each.convert("RGB")).astype(int) for each in (transform.apply(probe), probe))
    return int(np.abs(after - before).max()) <= 1
