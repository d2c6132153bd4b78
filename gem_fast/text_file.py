"""Text that others wrote: small files of it, such as lists of classes, and names that are none. Needs no torch."""

import os


def read_text_file(path: str | os.PathLike, name: str, most: int, right: str) -> str:
    """The text of a file in UTF-8, of which no more than `most` bytes are read.

    Args:
        path: the file.
        name: what it is called in errors.
        most: bytes that such a file may have.
        right: what to write into it, as errors say it.

    Raises:
        ValueError: it can't be read, or is too large or no text.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError(f"{name} is no file; {right} into one")
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ValueError(f"{name} can't be read: {error.strerror}") from error
    if len(content) > most:
        raise ValueError(f"{name} is larger than {most:,} bytes, which no such list is; {right}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} can't be read as UTF-8 text: {error}") from error


def as_utf8(text: str) -> str:
    """The text with what is none, such as bytes of a file's name, written as escapes."""
    return text.encode(errors="backslashreplace").decode()
