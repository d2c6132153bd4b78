"""A TIFF file to a Pillow image: by Pillow where it is right, else by `tiff`. Needs no torch."""

from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import ImageError
from .orientation import ORIENTATION_TAG, turned
from .pixels import from_floats, from_integers, with_info
from .tiff import Layout, layout, read_samples, suits_pillow
from .tiff_tags import read_tags

_ICC_TAG = 34675
_WANTED = frozenset({256, 257, 258, 259, 262, 266, ORIENTATION_TAG, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339, _ICC_TAG})  # fmt: skip


def open_tiff(file: BinaryIO, max_pixels: int) -> Image.Image:
    """The first image of the file, its samples in 8 bits; Pillow's are not loaded yet.

    Raises:
        ImageError: its samples can't be read, or it has more pixels than that. Whatever Pillow raises.
    """
    tags = read_tags(file, _WANTED)
    if suits_pillow(tags):
        try:
            return Image.open(file, formats=("TIFF",))
        except UnidentifiedImageError:
            pass  # a kind that Pillow doesn't know: read below, or the reason told
    form = layout(tags)
    if form.width * form.height > max_pixels:
        raise ImageError(f"{form.width}×{form.height} is more than {max_pixels:,} pixels")
    image = _to_image(read_samples(file, form), form)
    profile = tags.entries[_ICC_TAG].tobytes() if _ICC_TAG in tags else None
    return turned(with_info(image, {"icc_profile": profile}), tags.one(ORIENTATION_TAG, 1))


def _to_image(samples: np.ndarray, form: Layout) -> Image.Image:
    narrow = from_floats(samples, form.colours) if form.kind == "f" else from_integers(samples, form.bits)
    if form.inverted:
        narrow[..., 0] = 255 - narrow[..., 0]
    if form.colours == 4:
        return Image.fromarray(narrow[..., :4].copy(), "CMYK")
    clear = "" if form.alpha is None else "a" if form.premultiplied else "A"
    image = Image.fromarray(narrow[..., 0] if narrow.shape[2] == 1 else narrow)
    return image if clear != "a" else _reinterpreted(image)


def _reinterpreted(image: Image.Image) -> Image.Image:
    """Colours that are multiplied by alpha."""
    mode = {"LA": "La", "RGBA": "RGBa"}[image.mode]
    return Image.frombytes(mode, image.size, image.tobytes())
