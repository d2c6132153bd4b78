"""What a JPEG 2000 file says of its samples, where Pillow passes over it. Needs no torch."""

from typing import BinaryIO

from PIL import Image

from ..errors import ImageError
from .boxes import boxes
from .colour import MAX_PROFILE

_MAX_COMPONENTS = 4  # more are no mode of Pillow's


def check_depth(image: Image.Image, file: BinaryIO) -> None:
    """Refuse the samples that Pillow shifts to 8 bits: white overflows to black, and few bits never get to white.

    Raises:
        ImageError: samples are signed, or of other depths than 8 bits and, in grey, 9 to 16.
    """
    depths = _depths(file)
    if not depths <= (set(range(9, 17)) if image.mode == "I;16" else {8}):
        said = " and ".join(f"{abs(bits)} bits{' with a sign' if bits < 0 else ''}" for bits in sorted(depths))
        raise ImageError(
            f"a JPEG 2000 of {said} can't be read: right would be 8 bits, in grey alone 10 to 16, or a PNG or TIFF"
        )


def _depths(file: BinaryIO) -> set[int]:
    """Bits of the components' samples, negative if they are signed. Source: ISO/IEC 15444-1, A.5.1.

    Raises:
        ImageError: there is no codestream.
    """
    file.seek(0)
    start = 0
    if file.read(2) != b"\xff\x4f":
        start = next((content for kind, content, _ in boxes(file) if kind == b"jp2c"), 0)
    file.seek(start)
    head = file.read(42 + 3 * _MAX_COMPONENTS)
    if head[:4] != b"\xff\x4f\xff\x51":
        raise ImageError("damaged or truncated (it has no codestream)")
    told = head[42::3][: int.from_bytes(head[40:42], "big")]
    return {((each & 127) + 1) * (-1 if each & 128 else 1) for each in told}


def embedded_profile(file: BinaryIO) -> bytes | None:
    """The ICC profile of the first colour specification; None where it names a colour space or is missing."""
    file.seek(0)
    if file.read(2) == b"\xff\x4f":
        return None
    for kind, start, end in boxes(file):
        if kind == b"jp2h":
            for part, content, after in boxes(file, start, end):
                if part == b"colr":
                    file.seek(content)
                    said = file.read(min(after - content, 3 + MAX_PROFILE))
                    return said[3:] if said[:1] in (b"\2", b"\3") else None
    return None
