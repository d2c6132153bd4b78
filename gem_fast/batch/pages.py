"""The pages of a Parquet column by their headers alone, so that none is inflated without a bound.

Source: the Parquet format's `PageHeader`, in Thrift's compact protocol.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

LARGEST = 1 << 30  # bytes of a page
_SMALL, _RATIO = 1 << 24, 200  # beyond the first no page of images is so many times what it is stored as
_HEAD = 1 << 16  # bytes that hold a page's header, statistics included
_DICTIONARY = 2


@dataclass(frozen=True)
class Pages:
    """What reading a column chunk takes: bytes of its largest page, of its dictionary, and why it can't be, if so."""

    largest: int = 0
    dictionary: int = 0
    refused: str | None = None


def look_through(file: BinaryIO, column: Any) -> Pages:
    """The pages of a column chunk (pyarrow's metadata of it)."""
    place = min(each for each in (column.dictionary_page_offset, column.data_page_offset) if each is not None)
    end = place + column.total_compressed_size
    largest = dictionary = 0
    while place < end:
        file.seek(place)
        try:
            fields, length = _header(file.read(_HEAD))
        except (IndexError, ValueError):
            return Pages(refused="a damaged header of a Parquet page")
        kind, inflated, stored = (fields.get(each, 0) for each in (1, 2, 3))
        if stored < 0 or inflated < 0 or (not stored and inflated):
            return Pages(refused="a damaged header of a Parquet page")
        if inflated > LARGEST or (inflated > _SMALL and inflated > _RATIO * stored):
            return Pages(refused=f"a Parquet page that inflates {stored:,} bytes to {inflated:,}")
        largest = max(largest, inflated)
        dictionary = max(dictionary, inflated if kind == _DICTIONARY else 0)
        place += length + stored
    return Pages(largest, dictionary)


def _header(content: bytes) -> tuple[dict[int, int], int]:
    """The whole numbers among a header's fields, and its length."""
    reader = iter(content)
    at = _Place(reader)
    fields = at.struct(0)
    return fields, at.count


class _Place:
    """Reads Thrift's compact protocol; StopIteration becomes a ValueError."""

    def __init__(self, content: Iterator[int]) -> None:
        self._content, self.count = content, 0

    def _byte(self) -> int:
        self.count += 1
        value = next(self._content, None)
        if value is None:
            raise ValueError("cut off")
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("too long a number")

    def struct(self, depth: int) -> dict[int, int]:
        if depth > 8:
            raise ValueError("too deep")
        fields: dict[int, int] = {}
        name = 0
        while head := self._byte():
            kind = head & 15
            step = head >> 4
            name = name + step if step else self._number()
            value = self._value(kind, depth)
            if isinstance(value, int):
                fields[name] = value
        return fields

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # true, false
            return None
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._number()
        if kind == 7:
            return [self._byte() for _ in range(8)] and None
        if kind == 8:
            return [self._byte() for _ in range(self._varint())] and None
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, depth + 1) for _ in range(count)] and None
        if kind == 12:
            self.struct(depth + 1)
            return None
        raise ValueError("an unknown type")
