"""What a JPEG 2000 file says of its samples, where Pillow passes over it. Needs no torch."""

from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import BinaryIO

from PIL import Image

from ..errors import ImageError
from .boxes import boxes
from .colour import MAX_PROFILE

_MAX_COMPONENTS = 4  # more are no mode of Pillow's
_MAX_PARTS = 1 << 20  # of all tiles
_SPACES = {12, 16, 17, 18}  # CMYK, sRGB, grey and sYCC; by number in ISO/IEC 15444-2, M.11.7.3


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
    """Bits of the components' samples, negative if they are signed. Source: ISO/IEC 15444-1, A.5.1."""
    file.seek(_codestream(file))
    head = file.read(42 + 3 * _MAX_COMPONENTS)
    told = head[42::3][: int.from_bytes(head[40:42], "big")]
    return {((each & 127) + 1) * (-1 if each & 128 else 1) for each in told}


def _codestream(file: BinaryIO) -> int:
    """Where the codestream starts.

    Raises:
        ImageError: there is none.
    """
    file.seek(0)
    start = 0
    if file.read(2) != b"\xff\x4f":
        start = next((content for kind, content, _ in boxes(file) if kind == b"jp2c"), 0)
    file.seek(start)
    if file.read(4) != b"\xff\x4f\xff\x51":
        raise ImageError("damaged or truncated (it has no codestream)")
    return start


def recounted(file: BinaryIO) -> BinaryIO:
    """The file; or a copy that counts the parts of tiles right, where one is missing, as of Adobe's encoders.

    Pillow takes that for damage, other readers add the one. Source: ISO/IEC 15444-1, A.4.2.
    """
    parts = list(islice(_tile_parts(file), _MAX_PARTS))
    file.seek(0)
    if not any(0 < count <= number for _, number, count in parts):
        return file
    content = bytearray(file.read())
    for place, _, count in parts:
        content[place] = min(count + 1, 255) if count else 0  # 0 leaves it to another part to tell
    return BytesIO(content)


def _tile_parts(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Of each part its number in its tile, and how many the tile has by it: the place of that byte, and both."""
    place = _codestream(file) + 2
    while True:
        file.seek(place)
        head = file.read(12)
        length = int.from_bytes(head[2:4], "big") + 2
        if head[:2] == b"\xff\x90":
            length = int.from_bytes(head[6:10], "big")
            if len(head) == 12:
                yield place + 11, head[10], head[11]
        if len(head) < 12 or head[:2] == b"\xff\xd9" or length < 4:
            return
        place += length


def embedded_profile(file: BinaryIO) -> bytes | None:
    """The ICC profile of the first colour specification; None where it names a colour space or is missing.

    Raises:
        ImageError: it names a colour space that Pillow would take for another.
    """
    file.seek(0)
    if file.read(2) == b"\xff\x4f":
        return None
    for kind, start, end in boxes(file):
        if kind == b"jp2h":
            for part, content, after in boxes(file, start, end):
                if part == b"colr":
                    file.seek(content)
                    said = file.read(min(after - content, 3 + MAX_PROFILE))
                    space = int.from_bytes(said[3:7], "big")
                    if said[:1] == b"\1" and space not in _SPACES:
                        raise ImageError(
                            f"a JPEG 2000 in the colour space {space} can't be read: right would be sRGB, or a PNG"
                        )
                    return said[3:] if said[:1] in (b"\2", b"\3") else None
    return None
