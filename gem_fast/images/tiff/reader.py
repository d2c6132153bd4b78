"""A TIFF file to a Pillow image: by Pillow where it is right, else by its samples."""

import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImagePalette, TiffImagePlugin

from ...errors import ImageError
from ..colour import to_srgb
from ..limits import MAX_PIXELS, check_size
from ..orientation import ORIENTATION_TAG, turned
from ..pixels import from_floats, from_integers, with_info
from .blocks import blocks
from .layout import Layout, layout, suits_pillow
from .samples import libtiff_arguments, read_samples
from .tags import COMPRESSION, HEIGHT, LAYOUT_TAGS, PHOTOMETRIC, SUBFILE_TYPE, SUBSAMPLING, WIDTH, Tags, read_tags

_PROFILE_TAG, _PALETTE_TAG = 34675, 320
_YCBCR, _UNCOMPRESSED = 6, 1
_REDUCED = 1  # the bit of an image that is another's in small


def open_tiff(file: BinaryIO, most: int = MAX_PIXELS) -> Image.Image:
    """The first image of the file, at most so many pixels, its samples in 8 bits.

    Raises:
        ImageError: its samples can't be read, or it is too large. Whatever Pillow raises.
    """
    tags = read_tags(file, LAYOUT_TAGS | {ORIENTATION_TAG, _PROFILE_TAG})
    if tags.one(SUBFILE_TYPE, 0) & _REDUCED:
        raise ImageError(
            "a TIFF that starts with a preview, as raw photos do (DNG, NEF), is not read: develop it first"
        )
    check_size(tags.one(WIDTH), tags.one(HEIGHT), most)
    stored = blocks(tags)
    if tags.one(PHOTOMETRIC, 1) == _YCBCR and stored.planar and tags.values(SUBSAMPLING, (2, 2)) != (1, 1):
        raise ImageError("a TIFF of YCbCr in planes of different sizes (subsampled colours) can't be read")
    if suits_pillow(tags):
        try:
            return _by_pillow(file, tags)
        except SyntaxError:
            pass  # a kind that Pillow doesn't know: read below, or the reason told
    form = layout(tags, stored)
    profile = tags.entries[_PROFILE_TAG].tobytes() if _PROFILE_TAG in tags else None
    return turned(_to_image(read_samples(file, form), form, profile), tags.one(ORIENTATION_TAG, 1))


def _by_pillow(file: BinaryIO, tags: Tags) -> Image.Image:
    file.seek(0)
    with warnings.catch_warnings():  # of sizes that are allowed here, and of tags that say nothing of the picture
        warnings.simplefilter("ignore")
        image = TiffImagePlugin.TiffImageFile(file)
        if (tags.one(PHOTOMETRIC, 1), tags.one(COMPRESSION, 1)) == (_YCBCR, _UNCOMPRESSED):
            _give_to_libtiff(image, (tags.one(WIDTH), tags.one(HEIGHT)))
        colours = image.tag_v2.get(_PALETTE_TAG, ()) if image.palette else ()
        if colours and max(colours) < 256:  # in 8 bits, where 16 would be right; libtiff takes them so too
            image.palette = ImagePalette.raw("RGB;L", bytes(colours))
        _load(image)
    return image


def _give_to_libtiff(image: TiffImagePlugin.TiffImageFile, size: tuple[int, int]) -> None:
    """YCbCr as RGB: Pillow's own decoder knows neither subsampling nor planes."""
    arguments = libtiff_arguments("RGBX", image.tag_v2.offset)
    image.tile = [image.tile[0]._replace(codec_name="libtiff", extents=(0, 0, *size), offset=0, args=arguments)]
    image._mode, image.use_load_libtiff = "RGB", True


def _load(image: TiffImagePlugin.TiffImageFile) -> None:
    try:
        image.load()
    except OSError as error:
        if "decoder error" not in str(error):
            raise
        kind = f"compression {image.tag_v2.get(COMPRESSION, 1)}"
        raise ImageError(f"damaged or truncated, or of a kind that libtiff does not decode here ({kind})") from error


def _to_image(samples: np.ndarray, form: Layout, profile: bytes | None) -> Image.Image:
    """With its profile, or with alpha in sRGB."""
    narrow = from_floats(samples, form.colours) if form.kind == "f" else from_integers(samples, form.bits)
    colours, alpha = narrow[..., : form.colours], narrow[..., form.colours :]
    if form.premultiplied:
        _divide(colours, alpha[..., 0])
    if form.inverted:
        np.subtract(255, colours, out=colours)
    size = (form.blocks.width, form.blocks.height)
    image = Image.frombuffer(form.mode, size, np.ascontiguousarray(colours), "raw", form.mode, 0, 1)
    if form.alpha is None:
        return with_info(image, {"icc_profile": profile})
    clear = to_srgb(image, profile)  # before alpha is put in, for which CMYK and CIELAB have no room
    clear.putalpha(Image.fromarray(alpha[..., 0]))
    return clear


def _divide(colours: np.ndarray, alpha: np.ndarray) -> None:
    """In place, colours that are multiplied by alpha."""
    divisor = np.maximum(alpha, 1).astype(np.uint16)
    for channel in range(colours.shape[2]):
        whole = (colours[..., channel].astype(np.uint16) * 255 + divisor // 2) // divisor
        colours[..., channel] = np.minimum(whole, 255)
