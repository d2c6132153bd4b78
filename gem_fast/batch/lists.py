"""Lists of inputs: a file with one a line, or the standard input."""

import os
import shutil
import sys
import tempfile
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 1 << 15  # bytes of a line


@contextmanager
def standard_input(inputs: list[str]) -> Iterator[list[str]]:
    """The inputs with `-` replaced by a list that holds what the standard input had: it is read more than once."""
    if "-" not in inputs:
        yield inputs
        return
    with tempfile.TemporaryDirectory(prefix="gem_fast_") as folder:
        path = os.path.join(folder, "stdin")
        with open(path, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield [f"@{path}" if each == "-" else each for each in inputs]


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
