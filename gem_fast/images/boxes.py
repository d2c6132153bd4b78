"""The boxes that JPEG 2000 and JPEG XL files are made of. Needs no torch."""

import os
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import ImageError

_MOST = 1000  # boxes; files have about ten before their picture


def boxes(file: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box in turn, and where its content starts and ends. Source: ISO/IEC 15444-1, I.4.

    Raises:
        ImageError: a box is shorter than its own head, or there are more than any file has.
    """
    end = file.seek(0, os.SEEK_END) if end is None else end
    for _ in range(_MOST):
        if start >= end:
            return
        file.seek(start)
        head = file.read(16)
        length, kind, content = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if length == 1:
            length, content = int.from_bytes(head[8:], "big"), start + 16
        after = start + length if length else end
        if after < content:
            raise ImageError(f"damaged or truncated (a box of {length} bytes)")
        yield kind, content, min(after, end)
        start = after
    raise ImageError(f"damaged or truncated (more than {_MOST:,} boxes)")
