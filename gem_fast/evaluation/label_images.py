"""Annotations as arrays: label PNGs and lists of names, which come from others. Needs no torch."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from ..images import ImageError
from ..images.formats import check_regular
from ..images.limits import MAX_WINDOWED_PIXELS, check_size
from ..images.pixels import GREY_STEPS
from ..text_file import read_text_file

_LARGEST_LIST = 1 << 22  # bytes
_NAME = re.compile(r"[\w.-]+")


def read_label_image(path: Path) -> np.ndarray:
    """The labels of a PNG of one channel, with or without a palette: `[H, W]` uint8 or uint16.

    Raises:
        ImageError: there is none, it is damaged or too large, or it is a picture of several channels.
    """
    with _opened(path) as image:
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
            raise ImageError(f"a label image has one channel, this one is {image.mode}")
        step = GREY_STEPS.get(str(image.tile[0][3]), 1) if image.mode == "L" else 1
        labels = np.array(image, np.uint8 if image.mode == "1" else None)
        if step > 1:
            labels //= step
    return labels.astype(np.uint8 if labels.dtype.itemsize == 1 else np.uint16)


def label_size(path: Path) -> tuple[int, int]:
    """Height and width of a label image, by its header alone; errors as above."""
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile]:
    """A label image of at most `MAX_WINDOWED_PIXELS`: its photograph says whether it may have as many."""
    try:
        check_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=("PNG",))
        with image:
            check_size(image.width, image.height, MAX_WINDOWED_PIXELS)
            yield image
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such label image") from error
    except Exception as error:  # whatever a decoder makes of a damaged file
        raise ImageError(f"{path}: no label PNG that can be read ({error})") from error


def read_names(path: Path) -> list[str]:
    """Names of images, one a line, none of which leads out of a folder.

    Raises:
        ValueError: the file can't be read, or a line is no such name.
    """
    right = "write one name of an image a line"
    names = read_text_file(path, str(path), _LARGEST_LIST, right).split()
    for name in names:
        if not _NAME.fullmatch(name) or set(name) <= {"."}:
            raise ValueError(f"{path} holds {name[:80]!r}, which is no name of an image; {right}")
    if not names:
        raise ValueError(f"{path} is empty; {right}")
    return names
