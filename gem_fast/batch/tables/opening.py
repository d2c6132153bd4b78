"""Tables by their files, and the images in their rows."""

import os
import threading
from dataclasses import dataclass

from ...errors import ImageError
from ..contents import MAX_BYTES
from ..remote import is_url, open_binary
from .arrow import Arrow
from .columns import TableError, damage
from .parquet import Parquet

ENDINGS = (".parquet", ".arrow", ".feather")
_NOT_READ = {b"PARE": "encrypted Parquet", b"FEA1": "Feather of version 1"}


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


def open_table(path: str) -> Parquet | Arrow:
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
        raise TableError(damage(error)) from error


_opened = threading.local()


def _open_table(path: str) -> Parquet | Arrow:
    """The table that this worker, a process or a thread, read last; opened if it is another, or was written anew."""
    try:
        state = None if is_url(path) else os.stat(path)
    except OSError as error:
        raise TableError(f"can't be read: {error.strerror}") from error
    now = path, os.getpid(), state and (state.st_ino, state.st_size, state.st_mtime_ns)
    if getattr(_opened, "of", None) != now:
        _opened.table, _opened.of = open_table(path), now
    return _opened.table
