"""Images as people have them, to RGB in memory: files, PIL images, arrays and tensors. Needs no torch."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import ImageError, is_failure
from .colour import stays
from .formats import Format, check_regular, format_of
from .jpeg import jpeg_samples
from .jpeg2000 import recounted
from .limits import MAX_PIXELS, check_file, check_size
from .orientation import orientation, turned, turned_pixels
from .pixels import HALF_STEP, from_integers, to_rgb, with_info
from .plugins import loaded
from .tiff.reader import open_tiff

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs

ImageLike: TypeAlias = "str | os.PathLike | Image.Image | np.ndarray | Tensor"

_MAX_REASON = 200  # characters of a decoder's message
_TOO_MUCH_TEXT = ("Decompressed data too large", "Too much memory used in text")  # Pillow's limits


def read_image(path: str | os.PathLike, most: int = MAX_PIXELS) -> Image.Image:
    """Read the first frame of a file as RGB, upright by its orientation, colours in sRGB, transparency on white.

    Formats are told by their first bytes, never by the name; `docs/images.md` lists them and how samples become pixels.
    An image may have `most` pixels.

    Raises:
        ImageError: the file is missing, no regular file, empty, damaged, of another format, or too large.
    """
    return _picture(_read(Path(path), most))


def _read(path: Path, most: int) -> Image.Image | np.ndarray:
    """A file as what its decoder gives: pixels `[H, W, 3]` uint8, or a picture."""
    with _failures_named(str(path)):
        check_regular(path)
        with open(path, "rb") as file:
            return _decoded(file, most)


def decode_image(content: bytes, name: str, most: int = MAX_PIXELS) -> Image.Image:
    """Read what would be a file's content, as `read_image` reads files; errors call it by the name given."""
    return _picture(_decode(content, name, most))


def decode_pixels(content: bytes, name: str, most: int = MAX_PIXELS) -> np.ndarray:
    """The same as pixels `[H, W, 3]` uint8."""
    return np.asarray(_decode(content, name, most))


def _decode(content: bytes, name: str, most: int) -> Image.Image | np.ndarray:
    with _failures_named(name):
        if not content:
            raise ImageError("the file is empty")
        return _decoded(io.BytesIO(content), most)


def _picture(found: Image.Image | np.ndarray) -> Image.Image:
    return Image.fromarray(found) if isinstance(found, np.ndarray) else found


def _decoded(file: BinaryIO, most: int) -> Image.Image | np.ndarray:
    form = format_of(file)
    check_file(file, form.name, most)
    with _opened(file, form, most) as image:
        check_size(image.width, image.height, most)
        samples = jpeg_samples(image, file) if form.name == "JPEG" else None
        if samples is None:
            return _upright_rgb(image)
        if image.mode == "RGB" and stays(image.info.get("icc_profile"), "RGB"):
            return turned_pixels(samples, orientation(image))
        decoded = Image.frombytes(image.mode, image.size, samples)
        return turned(to_rgb(with_info(decoded, image.info)), orientation(image))


def _opened(file: BinaryIO, form: Format, most: int) -> Image.Image:
    """By its format's plugin, which warns of sizes that are allowed here."""
    file = recounted(file) if form.name == "JPEG 2000" else file
    if form.name == "TIFF" or most <= MAX_PIXELS:
        return open_tiff(file, most) if form.name == "TIFF" else Image.open(file, formats=(form.plugin,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file, formats=(form.plugin,))


def _upright_rgb(image: Image.Image) -> Image.Image:
    return turned(to_rgb(loaded(image)), orientation(image))


@contextmanager
def _failures_named(name: str) -> Iterator[None]:
    """Whatever is raised, as an ImageError that starts with the image's name."""
    try:
        yield
    except BaseException as error:
        if not is_failure(error):
            raise
        raise ImageError(f"{name}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    match error:
        case ImageError():
            return str(error)
        case FileNotFoundError():
            return "there is no such file"
        case PermissionError():
            return "no permission to read it"
        case UnidentifiedImageError():
            return "damaged or truncated (or its header is of a kind that can't be read)"
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"more than {MAX_PIXELS:,} pixels"
        case MemoryError():
            return "damaged or truncated (decoding it takes more memory than there is)"
    said = " ".join(str(getattr(error, "strerror", None) or error).partition(" Please build ")[0].split())[:_MAX_REASON]
    if said.startswith("Unsupported") or said.endswith("Not implemented"):  # a header that is whole
        return f"of a kind that is not read ({said})"
    if said.startswith(_TOO_MUCH_TEXT):
        return f"a PNG with more text, or a larger profile, than is read ({said})"
    return f"damaged or truncated ({said or type(error).__name__})"


def load_image(source: ImageLike, most: int = MAX_PIXELS) -> Image.Image:
    """A path, PIL image, array or tensor to RGB.

    Arrays are `[H, W]`, or `[H, W, C]` with 1 (grey), 2 (grey, alpha), 3 or 4 channels; tensors `[C, H, W]`. They are
    bool, uint8 or uint16 with the largest value white, or floating in 0..1; what exceeds that by rounding, less than
    half an 8-bit step, is clipped. Files may have `most` pixels.

    Raises:
        ImageError: the image can't be read, or has a wrong shape, type or range.
    """
    if isinstance(source, str | os.PathLike):
        return read_image(source, most)
    if isinstance(source, Image.Image):
        with _failures_named(str(getattr(source, "filename", "") or "a PIL image")):
            if source.format == "EPS":
                raise ImageError("in the format EPS, which another program would have to read")
            return _upright_rgb(source)
    if is_tensor(source):
        return _from_array(_tensor_array(source))
    if isinstance(source, np.ndarray):
        return _from_array(source)
    raise ImageError(f"an image must be a path, PIL image, array or tensor, got {type(source).__name__}")


def load_pixels(source: ImageLike, most: int = MAX_PIXELS) -> np.ndarray:
    """The same as an array, `[H, W, 3]` uint8: of a JPEG several times as fast as by way of a picture."""
    found = _read(Path(source), most) if isinstance(source, str | os.PathLike) else load_image(source, most)
    return np.asarray(found)


def is_tensor(value: Any) -> "TypeIs[Tensor]":
    """Whether it is a torch tensor: no one holds one who has not imported torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _tensor_array(tensor: "Tensor") -> np.ndarray:
    """`[C, H, W]` to `[H, W, C]`."""
    try:
        shape = list(tensor.shape)
        wide = tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor
        array = wide.detach().cpu().resolve_conj().resolve_neg().numpy()
    except (RuntimeError, TypeError) as error:  # meta, sparse, quantized, nested
        raise ImageError(f"a tensor image must be dense and hold its values ({str(error)[:_MAX_REASON]})") from error
    if len(shape) != 3 or shape[0] not in (1, 2, 3, 4):
        raise ImageError(f"a tensor image must be [3, H, W], or have 1, 2 or 4 channels, got {shape}")
    return array.transpose(1, 2, 0)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if 0 in array.shape or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (2, 3, 4))):
        raise ImageError(
            f"an array image must be [H, W], or [H, W, 3] with 1, 2, 3 or 4 channels, got {list(array.shape)}"
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= -HALF_STEP and array.max() <= 1 + HALF_STEP):
            raise ImageError(f"a floating image must lie in 0..1, got {array.min():g}..{array.max():g}")
        array = np.round(array.clip(0, 1) * 255).astype(np.uint8)
    elif array.dtype == bool:
        array = array * np.uint8(255)
    elif array.dtype.newbyteorder("=") == np.uint16:  # files of geodata have big-endian ones
        array = from_integers(array, 16)
    if array.dtype != np.uint8:
        raise ImageError(f"an image must be bool, uint8, uint16 or floating in 0..1, got {array.dtype}")
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))


def as_batch(images: Any) -> tuple[list[ImageLike], bool]:
    """The images as a list, and whether a single one was given."""
    if (isinstance(images, np.ndarray) or is_tensor(images)) and images.ndim == 4:
        return list(images), False
    if isinstance(images, list | tuple):
        return list(images), False
    return [images], True
