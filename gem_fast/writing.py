"""Files that appear whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# With these nothing more can be written, whatever its name.
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# How files of each ending begin and end.
_ENDS = {
    ".png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
    ".jpg": (b"\xff\xd8", b"\xff\xd9"),
    ".npz": (b"PK\x03\x04", None),
    ".json": (b"{", b"}"),
}
_END_OF_ZIP = b"PK\x05\x06"  # with 18 bytes behind it


class OutputError(OSError):
    """Nothing more can be written: the disk is full, or can't be written."""


def write_whole(
    path: Path, content: bytes | Iterable[bytes], partial: Path | None = None, *, sync: bool = True
) -> None:
    """Write a file as `whole_file` does: all of its content, or the content's parts."""
    with whole_file(path, partial, sync=sync) as file:
        file.writelines([content] if isinstance(content, bytes) else content)


@contextmanager
def whole_file(path: Path, partial: Path | None = None, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A file to write, under a temporary name; renamed at the end: an interruption leaves no half file of the name.

    Args:
        path: the file; its folder is made.
        partial: folder for the temporary name, on the same file system; by default the file's own.
        sync: wait for the disk. Without, a crash of the machine, but of nothing else, can leave the name with nothing
            in it, which `is_whole` tells.

    Raises:
        OutputError: nothing more can be written there. OSError: this file can't be written.
    """
    with told_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=partial or path.parent, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                if sync:
                    file.flush()
                    os.fsync(handle)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """An OSError of the block, with the file that was meant; OutputError if nothing more can be written."""
    try:
        yield
    except OSError as error:
        kind = OutputError if error.errno in _HOPELESS else OSError
        raise kind(error.errno, error.strerror, str(path)) from error


def make_room_for(path: Path) -> None:
    """Make the folder of a file that is to be written, before what it will hold is computed.

    Raises:
        ValueError: the path is a folder, or lies below a file. OSError: its folder can't be made or written.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file in it")
    if file := next((each for each in path.parents if each.exists() and not each.is_dir()), None):
        raise ValueError(f"{path} can't be written, since {file} is no folder: name a file in one")
    with told_of(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


def is_whole(path: Path) -> bool:
    """Whether a file is there and both begins and ends as its kind does."""
    begin, end = _ENDS.get(path.suffix, (b"", b""))
    try:
        with open(path, "rb") as file:
            head = file.read(len(begin))
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(size, 32), os.SEEK_END)
            tail = file.read().rstrip()
    except OSError:
        return False
    return bool(size) and head == begin and (_END_OF_ZIP in tail if end is None else tail.endswith(end))
