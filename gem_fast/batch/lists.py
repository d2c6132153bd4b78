"""Lists of inputs: a file with one a line, or the standard input."""

import os
import shutil
import sys
import tempfile
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import BinaryIO

_LONGEST = 1 << 15  # bytes of a line


@contextmanager
def standard_input(inputs: list[str]) -> Iterator[list[str]]:
    """The inputs with `-`, and lists that are pipes, replaced by files of what they had: lists are read more than once.

    Raises:
        ValueError: there is no standard input.
    """
    streams = {each for each in inputs if each == "-" or (each.startswith("@") and _is_pipe(each[1:]))}
    if not streams:
        yield inputs
        return
    with tempfile.TemporaryDirectory(prefix="gem_fast_") as folder:
        held = {each: os.path.join(folder, str(number)) for number, each in enumerate(streams)}
        for each, path in held.items():
            with _opened(each) as stream, open(path, "wb") as file:
                shutil.copyfileobj(stream, file)
        yield [f"@{held[each]}" if each in held else each for each in inputs]


def _is_pipe(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _opened(each: str) -> AbstractContextManager[BinaryIO]:
    """What a list comes from, which is closed unless it is the standard input."""
    if each != "-":
        return open(each[1:], "rb")
    if sys.stdin is None:
        raise ValueError("the list - is the standard input, which is closed")
    return nullcontext(sys.stdin.buffer)


def read_list(path: str) -> Iterator[str | None]:
    """The lines of a list that are not empty; None for one that is no path: too long, or with a NUL in it."""
    with open(path, "rb") as file:
        if file.read(len(BOM_UTF8)) != BOM_UTF8:  # which editors on Windows put first
            file.seek(0)
        while line := file.readline(_LONGEST):
            whole = line.endswith(b"\n") or len(line) < _LONGEST
            text = line.rstrip(b"\r\n")
            while not whole and line:
                line = file.readline(_LONGEST)
                whole = line.endswith(b"\n")
                text = b"\0"
            if text:
                yield None if b"\0" in text else os.fsdecode(text)
