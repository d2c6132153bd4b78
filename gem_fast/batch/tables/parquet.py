"""A Parquet table, of which no more is in memory than a few rows."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..remote import is_url, open_binary
from .columns import Columns, Rows, TableError, damage, has_bytes, place_of, texts_of
from .pages import row_groups, rows_within

OWN = b"gem_fast"  # in the metadata of tables that a run wrote
_INSIDE = 1 << 27  # bytes of keys, or of images, that are in memory at a time
_MOST_ROWS = 1 << 22  # in less than a byte each: paths in a row, or again and again, take no more
_ROWS = 16  # images that are in memory at a time, in each worker


class Parquet:
    """A Parquet file: a group is its row group."""

    def __init__(self, path: str) -> None:
        import pyarrow.parquet as pq

        self._raw = open_binary(path)
        limits = {"thrift_string_size_limit": 1 << 26, "thrift_container_size_limit": 1 << 22}
        # A buffer, or a whole column of a row group would be read at once.
        self._file = pq.ParquetFile(
            self._raw if is_url(path) else path, buffer_size=1 << 20, pre_buffer=False, **limits
        )
        self.schema = self._file.schema_arrow
        leaves = self._file.schema
        self._paths = [leaves.column(index).path for index in range(len(leaves))]
        self._groups = row_groups(self._raw)
        self._stream: _Stream | None = None

    @property
    def is_own(self) -> bool:
        return OWN in (self.schema.metadata or {})

    def rows(self, columns: Columns) -> Iterator[Rows]:
        """All rows, some at a time. TableError if one can't be read."""
        column, size = columns.path or columns.key, self._raw.seek(0, os.SEEK_END)
        total = sum(group.rows for group in self._groups)
        if total > max(size, _MOST_ROWS):  # missing ones, of which a few bytes may tell a billion
            raise TableError(f"{total:,} rows in {size:,} bytes, too many to be images")
        for group, count in enumerate(each.rows for each in self._groups):
            if not count:
                continue  # it need have no pages
            if column is None:
                for first in range(0, count, 1 << 16):
                    yield Rows(group, first, [None] * min(count - first, 1 << 16))
                continue
            step = min(1 << 16, self._rows_within(group, column))
            first = 0
            for batch in self._batches(group, column, step):
                yield Rows(group, first, texts_of(batch))
                first += len(batch)

    def image(self, group: int, row: int, column: str) -> bytes | None:
        stream = self._stream
        if stream is None or (stream.group, stream.column) != (group, column) or row < stream.first:
            size = min(_ROWS, self._rows_within(group, column))
            stream = self._stream = _Stream(group, column, self._batches(group, column, size))
        with suppress(StopIteration):
            return stream.take(row)
        raise TableError(f"row group {group} ends before row {row}")

    def _path(self, column: str) -> str:
        """What the file calls a column, or what holds its bytes."""
        return f"{column}.bytes" if has_bytes(self.schema.field(place_of(self.schema, column)).type) else column

    def _rows_within(self, group: int, column: str) -> int:
        index = self._paths.index(self._path(column))
        chunks = self._groups[group].chunks
        chunk = chunks[index] if index < len(chunks) else None
        if chunk is None:
            raise TableError(f"column {column} of row group {group} is encrypted, which is not read")
        try:
            return rows_within(self._raw, chunk, _INSIDE)
        except TableError as error:
            raise TableError(f"column {column} has {error}") from error

    def _batches(self, group: int, column: str, size: int) -> Iterator[Any]:
        import pyarrow

        path = self._path(column)
        try:
            for batch in self._file.iter_batches(size, row_groups=[group], columns=[path], use_threads=False):
                array = batch.column(place_of(batch.schema, column))  # columns like `image.width` come with `image`
                yield array if path == column else array.field("bytes")
        except (pyarrow.ArrowException, OSError) as error:
            raise TableError(damage(error)) from error


class _Stream:
    """The rows of a column one after another: a row is found by going on to it."""

    def __init__(self, group: int, column: str, batches: Iterator[Any]) -> None:
        self.group, self.column = group, column
        self.first, self._batch, self._batches = 0, None, batches

    def take(self, row: int) -> bytes | None:
        while self._batch is None or row >= self.first + len(self._batch):
            self.first += 0 if self._batch is None else len(self._batch)
            self._batch = next(self._batches)
        return self._batch[row - self.first].as_py()
