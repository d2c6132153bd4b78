"""What a Parquet file tells of its columns and their pages, so that none is inflated without a bound.

pyarrow's own metadata of a column ends the process where a file's statistics contradict themselves.

Source: the Parquet format's `parquet.thrift`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from .columns import TableError
from .thrift import ThriftError, read_struct

LARGEST = 1 << 30  # bytes of a page
_SMALL, _RATIO = 1 << 24, 200  # beyond the first no page of images is so many times what it is stored as
_HEAD, _MOST_HEAD = 1 << 16, 1 << 24  # bytes that hold a page's header; with statistics two images may be in it
_LARGEST_FOOTER = 1 << 26
_DELTA_BYTE_ARRAY = 7  # an encoding, by which a value repeats what the one before begins with


@dataclass(frozen=True)
class Chunk:
    """A column in a row group: where its pages lie."""

    first: int
    end: int


@dataclass(frozen=True)
class RowGroup:
    """So many rows, and the columns that hold them in the schema's order, of which an encrypted one tells nothing."""

    rows: int
    chunks: list[Chunk | None]


def row_groups(file: BinaryIO) -> list[RowGroup]:
    """The row groups of a Parquet file, by its footer.

    Raises:
        TableError: the footer is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    try:
        file.seek(size - 8)
        length = int.from_bytes(file.read(4), "little")
        if length > min(size - 8, _LARGEST_FOOTER):
            raise ThriftError(f"{length:,} bytes")
        file.seek(size - 8 - length)
        footer, _ = read_struct(file.read(length))
        return [_row_group(each) for each in footer[4]]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise TableError(f"damaged (its footer: {_told(error)})") from error


def _told(error: Exception) -> str:
    """What is wrong, where the error is about a number or a type of Python's."""
    return str(error) if isinstance(error, (ThriftError, OSError)) else "what it says is of another kind or missing"


def _row_group(told: dict[int, Any]) -> RowGroup:
    # The eighth field of a column is how it is encrypted.
    chunks = [_chunk(column[3]) if 3 in column and 8 not in column else None for column in told[1]]
    return RowGroup(int(told[3]), chunks)


def _chunk(told: dict[int, Any]) -> Chunk:
    data, dictionary = int(told[9]), int(told.get(11, 0))
    first = dictionary if 0 < dictionary < data else data  # as Parquet's C++ library has it
    return Chunk(first, first + int(told[7]))


def rows_within(file: BinaryIO, chunk: Chunk, most: int) -> int:
    """How many rows of a column chunk, one after another, take no more than so many bytes, by headers of pages alone.

    Raises:
        TableError: a page's header is damaged, or it takes more memory than a page of images does.
    """
    largest = repeated = 1
    fewest = most
    for page in _pages(file, chunk):
        if page.inflated > LARGEST or (page.inflated > _SMALL and page.inflated > _RATIO * page.stored):
            raise TableError(f"a Parquet page that inflates {page.stored:,} bytes to {page.inflated:,}")
        largest = max(largest, page.inflated)
        fewest = fewest if page.values is None else min(fewest, page.values)
        if page.values is None or page.encoding == _DELTA_BYTE_ARRAY:  # each row may have all that is in it
            repeated = max(repeated, page.inflated)
    return max(1, min(most // repeated, most // largest * fewest))


@dataclass(frozen=True)
class _Page:
    """A page's bytes as stored and inflated; a data page's values, and how they are encoded."""

    stored: int
    inflated: int
    values: int | None
    encoding: int | None


def _header(file: BinaryIO, place: int) -> tuple[dict[int, Any], int]:
    size = _HEAD
    while True:
        file.seek(place)
        content = file.read(size)
        try:
            return read_struct(content)
        except ThriftError:
            if len(content) < size or size >= _MOST_HEAD:
                raise
            size *= 16


def _pages(file: BinaryIO, chunk: Chunk) -> Iterator[_Page]:
    place = chunk.first
    try:
        if place < 0:
            raise ThriftError("its place")
        while place < chunk.end:
            header, length = _header(file, place)
            inflated, stored = int(header[2]), int(header[3])
            if stored < 0 or inflated < 0 or (not stored and inflated):
                raise ThriftError("its sizes")
            data = header.get(5, {}) or header.get(8, {})  # the second of version 2, which has its encoding elsewhere
            yield _Page(stored, inflated, data.get(1), data.get(2 if 5 in header else 4))
            place += length + stored
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise TableError(f"a damaged header of a Parquet page ({_told(error)})") from error
