"""The tags of a TIFF file's first image, read with bounds that a hostile file can't exceed. Needs no torch."""

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from .errors import ImageError

_TYPES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_MAX_BYTES = 1 << 26  # of one tag: offsets of 8 million strips, or a profile


@dataclass(frozen=True)
class Tags:
    """Tags by number; `order` is "<" or ">"."""

    order: str
    entries: dict[int, np.ndarray]

    def __contains__(self, tag: int) -> bool:
        return tag in self.entries

    def array(self, tag: int) -> np.ndarray:
        if tag not in self.entries:
            raise ImageError(f"a TIFF without its tag {tag} can't be read")
        return self.entries[tag]

    def values(self, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """The first 64 values: those of one pixel's samples."""
        return tuple(self.entries[tag][:64].tolist()) if tag in self.entries else default

    def one(self, tag: int, default: int | None = None) -> int:
        return default if default is not None and tag not in self.entries else int(self.array(tag)[0])


def read_tags(file: BinaryIO, wanted: frozenset[int]) -> Tags:
    """The wanted tags of whole numbers or bytes; others are not read.

    Raises:
        ImageError: the file ends before them, or one is of a size that no image needs. struct.error: no TIFF.
    """
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    big = file.read(2) in (b"+\0", b"\0+")
    head, entry, inline = (("4xQ", "HHQ", 8), ("I", "HHI", 4))[not big]
    (start,) = struct.unpack(order + head, file.read(struct.calcsize(order + head)))
    file.seek(start)
    number_format = order + ("Q" if big else "H")
    (number,) = struct.unpack(number_format, file.read(struct.calcsize(number_format)))
    size = struct.calcsize(order + entry)
    table = file.read(min(number, 65_535) * (size + inline))
    found = {}
    for place in range(0, len(table) - size - inline + 1, size + inline):
        tag, kind, count = struct.unpack_from(order + entry, table, place)
        if tag not in wanted or kind not in _TYPES or tag in found or count == 0:
            continue
        dtype = np.dtype(order + _TYPES[kind])
        length = count * dtype.itemsize
        if length > _MAX_BYTES:
            raise ImageError(f"a TIFF with a tag {tag} of {length:,} bytes is not read")
        content = table[place + size : place + size + inline]
        if length > inline:
            file.seek(int.from_bytes(content, "little" if order == "<" else "big"))
            content = file.read(length)
        if len(content) < length:
            raise ImageError(f"damaged or truncated (the file ends within its tag {tag})")
        found[tag] = np.frombuffer(content, dtype, count)
    return Tags(order, found)
