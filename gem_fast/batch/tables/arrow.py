"""An Arrow table, file or stream, which is mapped into memory."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..remote import is_url, open_binary
from .columns import (
    Columns,
    Rows,
    TableError,
    as_bytes,
    bytes_of,
    damage,
    has_bytes,
    has_dictionary,
    place_of,
    texts_of,
)
from .flatbuffers import is_compressed, record_batches

_STEP = 1 << 12  # keys that are listed at a time


class Arrow:
    """An Arrow file or stream, mapped into memory: a group is where the message of its record batch begins."""

    def __init__(self, path: str) -> None:
        import pyarrow as pa

        self._source = pa.PythonFile(open_binary(path), "r") if is_url(path) else pa.memory_map(path)
        self._blocks: list[int] | None = None
        if self._source.read(6) == b"ARROW1":
            self.schema = pa.ipc.open_file(self._source).schema
            self._blocks = record_batches(_footer(self._source))
        else:
            self._source.seek(0)
            message = pa.ipc.read_message(self._source)
            if message.type != "schema":  # it would be taken for one all the same
                raise TableError("damaged (it does not begin with its schema)")
            self.schema = pa.ipc.read_schema(message)
        self._start = self._source.tell()
        if coded := [field.name for field in self.schema if has_dictionary(field.type)]:
            named = ", ".join(coded)
            raise TableError(f"Arrow with dictionaries ({named}) is not read: write it without, or as Parquet")
        self._last: tuple[int, Any] | None = None

    is_own = False

    def rows(self, columns: Columns) -> Iterator[Rows]:
        """All rows, some at a time. TableError if one can't be read."""
        column = columns.path or columns.key
        for place, batch in self._batches():
            # Without keys, too: a column is no longer than its bytes, whatever the batch says.
            array = self._column(batch, column or columns.content or "")
            for first in range(0, len(array), _STEP):
                part = array[first : first + _STEP]
                yield Rows(place, first, texts_of(part) if column else [None] * len(part))

    def _batches(self) -> Iterator[tuple[int, Any]]:
        """The record batches, and where they lie."""
        return self._behind_one_another() if self._blocks is None else self._named(self._blocks)

    def _behind_one_another(self) -> Iterator[tuple[int, Any]]:
        place = self._start
        with suppress(EOFError):
            while True:
                batch, after = self._batch(place)
                if batch is not None:
                    yield place, batch
                place = after

    def _named(self, blocks: list[int]) -> Iterator[tuple[int, Any]]:
        """Those that a file's footer has."""
        end = 0
        for place in blocks:
            if place < end:  # the same bytes again, any number of times
                raise TableError("damaged (its batches lie over one another)")
            try:
                batch, end = self._batch(place)
            except EOFError:
                batch = None
            if batch is None:
                raise TableError("damaged (its footer names what is no batch)")
            yield place, batch

    def image(self, group: int, row: int, column: str) -> bytes | None:
        if self._last is None or self._last[0] != group:
            batch, _ = self._batch(group)
            if batch is None:
                raise IndexError(group)
            self._last = group, self._column(batch, column)
        return self._last[1][row].as_py()

    def _column(self, batch: Any, column: str) -> Any:
        import pyarrow as pa

        array = batch.column(place_of(batch.schema, column))
        try:
            array.validate()
            array = bytes_of(array) if has_bytes(array.type) else array
            as_bytes(array).validate(full=True)  # every offset, and not whether text is UTF-8
        except pa.ArrowException as error:
            raise TableError(damage(error)) from error
        return array

    def _batch(self, place: int) -> tuple[Any, int]:
        """The record batch of a message, or None for another message, and where the next one begins."""
        import pyarrow as pa

        self._source.seek(place)
        try:
            message = pa.ipc.read_message(self._source)
            if message.type != "record batch":
                return None, self._source.tell()
            if is_compressed(message.metadata.to_pybytes()):
                raise TableError("compressed Arrow, which is not read: write it uncompressed, or as Parquet")
            return pa.ipc.read_record_batch(message, self.schema), self._source.tell()
        except (pa.ArrowException, OSError) as error:
            raise TableError(damage(error)) from error


def _footer(source: Any) -> bytes:
    """What stands at an Arrow file's end, which pyarrow has found sound."""
    size = source.size()
    source.seek(size - 10)
    source.seek(size - 10 - int.from_bytes(source.read(4), "little"))
    return bytes(source.read())
