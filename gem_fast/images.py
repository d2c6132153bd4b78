"""Images as people have them, to RGB in memory: files, PIL images, arrays and tensors. Needs no torch."""

import os
import struct
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs

ImageLike: TypeAlias = "str | os.PathLike | Image.Image | np.ndarray | Tensor"

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
MAX_PIXELS = 89_478_485  # Pillow's own limit, 256 MB of RGB
_DECODER_ERRORS = (OSError, ValueError, SyntaxError, EOFError, MemoryError, struct.error)  # what Pillow's raise
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """An image that can't be used; the message names it and the reason."""


def read_image(path: str | os.PathLike) -> Image.Image:
    """Read the first frame of a file as RGB, upright by its EXIF orientation, transparency on white.

    Raises:
        ImageError: the file is missing, empty, truncated, no image, or larger than `MAX_PIXELS`.
    """
    path = Path(path)
    if path.is_dir():
        raise ImageError(f"{path}: a folder, not an image; segment_files and the command line take folders")
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty")
        with warnings.catch_warnings():
            # The size is checked right below, with a message that names the file.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                check_size(image, path)
                return to_rgb(upright(image))
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image in a format that can be read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: more than {MAX_PIXELS:,} pixels") from error
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such file") from error
    except PermissionError as error:
        raise ImageError(f"{path}: no permission to read it") from error
    except ImageError:
        raise
    except _DECODER_ERRORS as error:
        raise ImageError(f"{path}: damaged or truncated ({error})") from error


def check_size(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{path}: {width}×{height} is more than {MAX_PIXELS:,} pixels")


def upright(image: Image.Image) -> Image.Image:
    """Turn and mirror as the EXIF orientation says; Pillow's own way fails where it can't write the EXIF data back."""
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except _DECODER_ERRORS:
        return image  # damaged metadata say nothing about the picture
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: 16-bit grey scaled to 8, transparency composited on white."""
    if 0 in image.size:
        raise ImageError(f"an image must have pixels, got {image.width}×{image.height}")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float64)
        if not np.isfinite(grey).all():
            raise ImageError("a floating image must be finite, this one has NaN or infinite values")
        # Modes I and F do not say their range: 0..1 or 8-bit values if all fit, else 16-bit.
        if image.mode == "F" and grey.max() <= 1:
            grey *= 255
        elif image.mode.startswith("I;16") or grey.max() > 255:
            grey /= 257
        return Image.fromarray(np.clip(np.round(grey), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def load_image(source: ImageLike) -> Image.Image:
    """A path, PIL image, array or tensor to RGB.

    Arrays are `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`; tensors `[3, H, W]` or `[1, H, W]`. Both are uint8, or
    floating in 0..1.

    Raises:
        ImageError: the image can't be read, or has a wrong shape, type or range.
    """
    if isinstance(source, str | os.PathLike):
        return read_image(source)
    if isinstance(source, Image.Image):
        try:
            return to_rgb(upright(source))
        except ImageError:
            raise
        except _DECODER_ERRORS as error:
            name = getattr(source, "filename", "") or "a PIL image"
            raise ImageError(f"{name}: damaged or truncated ({error})") from error
    if is_tensor(source):
        if source.ndim != 3 or source.shape[0] not in (1, 3):
            raise ImageError(f"a tensor image must be [3, H, W] or [1, H, W], got {list(source.shape)}")
        wide = source.float() if source.is_floating_point() and source.dtype.itemsize < 4 else source
        return load_image(wide.detach().cpu().permute(1, 2, 0).numpy())
    if isinstance(source, np.ndarray):
        return _from_array(source)
    raise ImageError(f"an image must be a path, PIL image, array or tensor, got {type(source).__name__}")


def is_tensor(value: Any) -> "TypeIs[Tensor]":
    """Whether it is a torch tensor: no one holds one who has not imported torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"an array image must be [H, W], [H, W, 3] or [H, W, 4], got {list(array.shape)}")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ImageError(f"a floating image must lie in 0..1, got {array.min():g}..{array.max():g}")
        array = np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"an image must be uint8 or floating in 0..1, got {array.dtype}")
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))


def sniff(path: str | os.PathLike) -> str | None:
    """TEMPORARY until the images branch lands."""
    with open(path, "rb") as file:
        return "image" if file.read(4)[:2] in (b"\xff\xd8", b"\x89P") else None
