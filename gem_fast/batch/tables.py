"""Images in Parquet and Arrow tables: as bytes in a column, or as paths. Rows are listed by their keys alone."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import ImageError
from .columns import Columns, TableError, as_bytes, bytes_of, has_bytes, has_dictionary, texts_of
from .contents import MAX_BYTES
from .flatbuffers import is_compressed, record_batches
from .pages import row_groups, rows_within
from .remote import is_url, open_binary

ENDINGS = (".parquet", ".arrow", ".feather")
_NOT_READ = {b"PARE": "encrypted Parquet", b"FEA1": "Feather of version 1"}
OWN = b"gem_fast"  # in the metadata of tables that a run wrote
_INSIDE = 1 << 27  # bytes of keys, or of images, that are in memory at a time
_STEP = 1 << 12  # keys of an Arrow table that are listed at a time
_MOST_ROWS = 1 << 22  # in less than a byte each: paths in a row, or again and again, take no more
_ROWS = 16  # images that are in memory at a time, in each worker


@dataclass(frozen=True)
class Rows:
    """Rows of a table that follow one another: their place in it, and their keys or paths."""

    group: int
    first: int
    texts: list[Any]


@dataclass(frozen=True)
class Row:
    """The image in one row."""

    image: str
    table: str
    group: int
    row: int
    column: str

    def read(self) -> bytes:
        try:
            content = _open_table(self.table).image(self.group, self.row, self.column)
        except ValueError as error:
            raise ImageError(f"{self.image}: {error}") from error
        except IndexError as error:  # it was written anew since it was listed
            raise ImageError(f"{self.image}: the table has no such row any more") from error
        if content is None:
            raise ImageError(f"{self.image}: the row has no image")
        if len(content) > MAX_BYTES:
            raise ImageError(f"{self.image}: larger than {MAX_BYTES:,} bytes")
        return content


def open_table(path: str) -> "Parquet | Arrow":
    """A table by its file's first bytes.

    Raises:
        TableError: it is none, or damaged. ValueError: pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise ValueError(f'{path}: tables need pyarrow: pip install "gem_fast[parquet]"') from None
    with open_binary(path) as file:
        head = file.read(8)
    for start, kind in _NOT_READ.items():
        if head.startswith(start):
            raise TableError(f"{kind}, which is not read: write it anew, as Parquet")
    try:
        return Parquet(path) if head[:4] == b"PAR1" else Arrow(path)
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        raise TableError(_told(error)) from error


def _told(error: BaseException) -> str:
    return f"damaged ({' '.join(str(error).split())[:200]})"


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
        return f"{column}.bytes" if has_bytes(self.schema.field(_index(self.schema, column)).type) else column

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
                array = batch.column(_index(batch.schema, column))  # columns like `image.width` come with `image`
                yield array if path == column else array.field("bytes")
        except (pyarrow.ArrowException, OSError) as error:
            raise TableError(_told(error)) from error


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

        array = batch.column(_index(batch.schema, column))
        try:
            array.validate()
            array = bytes_of(array) if has_bytes(array.type) else array
            as_bytes(array).validate(full=True)  # every offset, and not whether text is UTF-8
        except pa.ArrowException as error:
            raise TableError(_told(error)) from error
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
            raise TableError(_told(error)) from error


def _index(schema: Any, column: str) -> int:
    if column not in schema.names:
        raise TableError(f"it has no column {column}; was it written anew since it was listed?")
    return int(schema.names.index(column))


def _footer(source: Any) -> bytes:
    """What stands at an Arrow file's end, which pyarrow has found sound."""
    size = source.size()
    source.seek(size - 10)
    source.seek(size - 10 - int.from_bytes(source.read(4), "little"))
    return bytes(source.read())


_opened = threading.local()


def _open_table(path: str) -> "Parquet | Arrow":
    """The table that this worker, a process or a thread, read last; opened if it is another, or was written anew."""
    try:
        state = None if is_url(path) else os.stat(path)
    except OSError as error:
        raise TableError(f"can't be read: {error.strerror}") from error
    now = path, os.getpid(), state and (state.st_ino, state.st_size, state.st_mtime_ns)
    if getattr(_opened, "of", None) != now:
        _opened.table, _opened.of = open_table(path), now
    return _opened.table
