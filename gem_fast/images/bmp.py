"""What Pillow passes over in a BMP's header: a grey palette's bits, the alpha bit of 16, the profile. Needs no torch.

Source: BITMAPCOREHEADER, BITMAPINFOHEADER and BITMAPV5HEADER of Windows.
"""

import struct
from typing import Any, BinaryIO

from PIL import Image, ImagePalette

from .colour import MAX_PROFILE

_OLDEST, _V5 = 12, 124  # bytes of the shortest header and of the longest
_BY_MASKS = 3  # a compression
_EMBEDDED = b"DEBM"  # LCS_PROFILE_EMBEDDED; a profile that is linked is none of the file
_RAW = {1: "P;1", 4: "P;4", 8: "P"}


def loaded_bmp(image: Any) -> Image.Image:
    """A BMP that Pillow has opened, with its samples in memory and its profile among its facts.

    An alpha of nothing but zeros is one that its writer left out: such a picture is shown.
    """
    image.fp.seek(14)
    header = image.fp.read(_V5)
    length = int.from_bytes(header[:4], "little")
    _restore_palette(image, header)
    if length >= 56:
        _restore_alpha(image, header)
    image.info["icc_profile"] = _profile(image.fp, header) if length == _V5 else None
    image.load()
    if image.mode == "RGBA" and image.getextrema()[3] == (0, 0):
        image.putalpha(255)
    return image


def _restore_palette(image: Any, header: bytes) -> None:
    """Where Pillow takes a palette for none, it forgets how many bits a pixel has."""
    bits = int.from_bytes(header[10:12] if header[0] == _OLDEST else header[14:16], "little")
    if bits != {"1": 1, "L": 8}.get(image.mode, bits):
        levels = (0, 255) if image.mode == "1" else range(2**bits)
        image._mode, image.palette = "P", ImagePalette.raw("RGB", bytes(level for level in levels for _ in "RGB"))
        image.tile = [tile._replace(args=(_RAW[bits], *tile.args[1:])) for tile in image.tile]


def _restore_alpha(image: Any, header: bytes) -> None:
    """One of 16 bits may be alpha, by the last mask."""
    masked = image.info.get("compression") == _BY_MASKS and int.from_bytes(header[52:56], "little") == 1 << 15
    if masked and image.tile[0].args[0] == "BGR;15":
        image._mode = "RGBA"
        image.tile = [tile._replace(args=("BGRA;15", *tile.args[1:])) for tile in image.tile]


def _profile(file: BinaryIO, header: bytes) -> bytes | None:
    """The ICC profile that is embedded, as browsers take it; None for none."""
    if header[56:60] != _EMBEDDED:
        return None
    start, size = struct.unpack_from("<II", header, 112)
    file.seek(14 + start)
    return file.read(min(size, MAX_PROFILE + 1))
