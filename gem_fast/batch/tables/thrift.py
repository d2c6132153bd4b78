"""Thrift's compact protocol, in which a Parquet file tells of itself.

Source: Thrift's `thrift-compact-protocol.md`.
"""

from typing import Any

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_DEEPEST = 16  # structs and lists in one another, of which Parquet has eight


class ThriftError(ValueError):
    """Bytes that are no struct."""


def read_struct(content: bytes) -> tuple[dict[int, Any], int]:
    """The struct that bytes begin with, and how many it takes.

    Fields are by their numbers: numbers as int, strings and floating-point numbers as bytes, lists, and structs as the
    outer one. It takes no more steps than there are bytes.

    Raises:
        ThriftError: there is none, or it is cut off.
    """
    reader = _Reader(content)
    return reader.struct(0), reader.place


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content, self.place = content, 0

    def struct(self, depth: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        name = 0
        while head := self._byte():
            name = name + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            fields[name] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ThriftError("too deep")
        if kind in _INTEGERS:
            return self._integer()
        if kind in (_TRUE, _FALSE, _BYTE):  # the first two in a list, where each takes a byte
            return self._byte()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BINARY:
            return self._take(self._varint())
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            if count > len(self._content) - self.place:
                raise ThriftError("cut off")
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == _STRUCT:
            return self.struct(depth)
        raise ThriftError("an unknown type")

    def _take(self, count: int) -> bytes:
        taken = self._content[self.place : self.place + count]
        if len(taken) < count:
            raise ThriftError("cut off")
        self.place += count
        return taken

    def _byte(self) -> int:
        return self._take(1)[0]

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ThriftError("too long a number")
