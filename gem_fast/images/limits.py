"""What is checked before a decoder starts: no file costs more time or memory than its pixels. Needs no torch."""

import os
import re
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import ImageError
from .boxes import boxes

MAX_PIXELS = 89_478_485  # Pillow's own limit, 256 MB of RGB
MAX_WINDOWED_PIXELS = 2 * MAX_PIXELS  # of an image that is read in windows: what Pillow refuses whoever asks
MAX_SCANS = 100  # of a progressive JPEG; encoders write about 10, and each is a pass over all pixels
MAX_JPEG = 3 * MAX_WINDOWED_PIXELS  # bytes: what the pixels take without compression
_MAX_EXIF = 100  # segments of a JPEG, each of which Pillow copies with all before it
_MAX_SEGMENTS = 10_000
_JXL_SIZE = 16  # bytes of a JPEG XL codestream that hold its size
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # without those that no length follows
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    if width * height > most:
        raise ImageError(f"{width}×{height} is more than {most:,} pixels")


def check_file(file: BinaryIO, name: str, most: int = MAX_PIXELS) -> None:
    """Refuse what a format's decoder does before its size can be asked for.

    Raises:
        ImageError: a JPEG is larger than `MAX_JPEG`, or has more scans or segments than any needs; a JPEG XL has more
            than `most` pixels.
    """
    if name == "JPEG":
        if file.seek(0, os.SEEK_END) > MAX_JPEG:
            raise ImageError(f"a JPEG of more than {MAX_JPEG:,} bytes")
        file.seek(0)
        _check_segments(file.read())
    elif name == "JPEG XL":
        check_size(*jxl_size(_jxl_codestream(file)), most)
    file.seek(0)


def _check_segments(content: bytes) -> None:
    scans = exifs = 0
    for count, (marker, start) in enumerate(jpeg_segments(content)):
        scans += marker == 0xDA
        exifs += marker == 0xE1 and content.startswith(b"Exif", start)
        if scans > MAX_SCANS:
            raise ImageError(f"a JPEG of more than {MAX_SCANS} scans")
        if exifs > _MAX_EXIF or count >= _MAX_SEGMENTS:
            raise ImageError(f"a JPEG of more than {_MAX_EXIF} EXIF segments, or {_MAX_SEGMENTS:,} in all")


def jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """The marker of each segment of a JPEG's first image, and where its content starts. Source: ITU T.81, B.1."""
    place = 2
    while (found := _MARKER.search(content, place)) and found[1] != b"\xd9":
        place = found.end()
        yield found[1][0], place + 2
        place += int.from_bytes(content[place : place + 2], "big")


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
