"""What is checked before a decoder starts: no file costs more time or memory than its pixels. Needs no torch."""

import os
import re
from typing import BinaryIO

from ..errors import ImageError
from .boxes import boxes

MAX_PIXELS = 89_478_485  # Pillow's own limit, 256 MB of RGB
MAX_WINDOWED_PIXELS = 2 * MAX_PIXELS  # of an image that is read in windows: what Pillow refuses whoever asks
MAX_SCANS = 100  # of a progressive JPEG; encoders write about 10, and each is a pass over all pixels
_JXL_SIZE = 16  # bytes of a JPEG XL codestream that hold its size
_JPEG = 1 << 28  # bytes of a JPEG that are looked through
_SCAN = re.compile(rb"\xff\xda")
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    if width * height > most:
        raise ImageError(f"{width}×{height} is more than {most:,} pixels")


def check_file(file: BinaryIO, name: str, most: int = MAX_PIXELS) -> None:
    """Refuse what a format's decoder does before its size can be asked for.

    Raises:
        ImageError: a JPEG of more than `MAX_SCANS` scans, or a JPEG XL file of more than `most` pixels.
    """
    if name == "JPEG":
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        content = file.read(min(size, _JPEG))
        # The two bytes may also stand in metadata and in what follows the image, so that many are looked at closely.
        if len(_SCAN.findall(content)) > MAX_SCANS and jpeg_scans(content) > MAX_SCANS:
            raise ImageError(f"a JPEG of more than {MAX_SCANS} scans")
    elif name == "JPEG XL":
        check_size(*jxl_size(_jxl_codestream(file)), most)
    file.seek(0)


def jpeg_scans(content: bytes) -> int:
    """The scans up to the end of the first image."""
    scans, place = 0, 2
    while found := _MARKER.search(content, place):
        marker, place = found[1][0], found.end()
        if marker == 0xD9:
            break
        scans += marker == 0xDA
        place += int.from_bytes(content[place : place + 2], "big")
    return scans


def _jxl_codestream(file: BinaryIO) -> bytes:
    """The first bytes of the codestream: the file's, or those of a box, or of several that hold it in pieces.

    Raises:
        ImageError: there is none.
    """
    found = file.read(_JXL_SIZE)
    if not found.startswith(b"\xff\x0a"):
        found = b""
        for kind, start, end in boxes(file):
            if kind in (b"jxlc", b"jxlp"):
                file.seek(start + (4 if kind == b"jxlp" else 0))  # a piece starts with its number
                found += file.read(max(0, min(end - file.tell(), _JXL_SIZE)))
            if kind == b"jxlc" or len(found) >= _JXL_SIZE:
                break
    if not found.startswith(b"\xff\x0a"):
        raise ImageError("damaged or truncated (it has no codestream)")
    return found


def jxl_size(codestream: bytes) -> tuple[int, int]:
    """Width and height by a JPEG XL codestream's first bytes. Source: ISO/IEC 18181-1, SizeHeader."""
    bits = int.from_bytes(codestream[2:_JXL_SIZE], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    if ratio := take(3):
        across, down = _RATIOS[ratio]
        return height * across // down, height
    return side(), height
