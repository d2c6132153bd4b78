"""The tags of a TIFF file's first image, read with bounds that a hostile file can't exceed."""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ...errors import ImageError

SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, PLANES, PREDICTOR = 273, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING = (
    322,
    323,
    324,
    325,
    338,
    339,
    530,
)
LAYOUT_TAGS = frozenset({
    SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER,
    STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, PLANES, PREDICTOR,
    TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING,
})  # fmt: skip
_TYPES = {
    1: "u1",
    2: "u1",
    3: "u2",
    4: "u4",
    6: "i1",
    7: "u1",
    8: "i2",
    9: "i4",
    13: "u4",
    16: "u8",
    17: "i8",
    18: "u8",
}
_MAX_BYTES = 1 << 22  # of one tag that is read: the offsets of 500,000 strips or tiles, or a large profile
_MAX_TOTAL = 1 << 28  # of all tags, which Pillow loads; they may all name the same bytes


@dataclass(frozen=True)
class Tags:
    """Tags by number; `order` is "<" or ">"."""

    order: str
    entries: dict[int, np.ndarray]

    def __contains__(self, tag: int) -> bool:
        return tag in self.entries

    def array(self, tag: int) -> np.ndarray:
        if tag not in self.entries:
            raise ImageError(f"a TIFF whose tag {tag} is missing, or too large, can't be read")
        return self.entries[tag]

    def values(self, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """The first 64 values: those of one pixel's samples."""
        return tuple(self.entries[tag][:64].tolist()) if tag in self.entries else default

    def one(self, tag: int, default: int | None = None) -> int:
        return default if default is not None and tag not in self.entries else int(self.array(tag)[0])


def read_tags(file: BinaryIO, wanted: frozenset[int]) -> Tags:
    """The wanted tags of whole numbers or bytes; others, and those of more than 4 MB, are not read.

    Raises:
        ImageError: the file ends within one, or all that are named would fill the memory. struct.error: no TIFF.
    """
    file_size = file.seek(0, os.SEEK_END)
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    big = file.read(2) in (b"+\0", b"\0+")
    head, number, inline = ("4xQ", "Q", 8) if big else ("I", "H", 4)
    file.seek(*struct.unpack(order + head, file.read(struct.calcsize(order + head))))
    (entries,) = struct.unpack(order + number, file.read(inline if big else 2))
    step = 4 + 2 * inline
    table = file.read(min(entries, 65_535) * step)
    found, total = {}, 0
    for place in range(0, len(table) - step + 1, step):
        tag, kind, count = struct.unpack_from(f"{order}HH{'Q' if big else 'I'}", table, place)
        total += min(count * 8, file_size)
        if tag in wanted and kind in _TYPES and tag not in found and count:
            dtype = np.dtype(order + _TYPES[kind])
            value = table[place + 4 + inline : place + step]
            if count * dtype.itemsize <= _MAX_BYTES:
                found[tag] = np.frombuffer(_content(file, order, value, count * dtype.itemsize, tag), dtype, count)
    if total > max(_MAX_TOTAL, 4 * file_size):
        raise ImageError(f"a TIFF with {entries:,} tags of {total:,} bytes is not read")
    return Tags(order, found)


def _content(file: BinaryIO, order: str, value: bytes, length: int, tag: int) -> bytes:
    """A tag's bytes: in its entry where they fit, else where the entry says."""
    if length > len(value):
        file.seek(int.from_bytes(value, "little" if order == "<" else "big"))
        value = file.read(length)
    if len(value) < length:
        raise ImageError(f"damaged or truncated (the file ends within its tag {tag})")
    return value
