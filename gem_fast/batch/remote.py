"""Files and URLs, opened alike; URLs by fsspec where it is installed."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO
from weakref import finalize

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(::.*)?://", re.DOTALL)  # also a chain of them, as fsspec has it


def is_url(text: str) -> bool:
    return _URL.match(text) is not None


def open_binary(path: str) -> BinaryIO:
    """A file or URL, open for reading.

    Raises:
        OSError: it can't be read. ValueError: it is a URL, and what opens it is not installed.
    """
    if not is_url(path):
        return open(path, "rb")
    system, inside = file_system(path)
    file = system.open(inside, "rb")
    finalize(file, id, system)  # some, such as of a zip archive, close their files when they are let go
    return file


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path there.

    Raises:
        ValueError: fsspec, or what it needs for that kind of URL, is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ValueError(
            f"{url} needs fsspec: pip install fsspec, and s3fs, gcsfs or adlfs by the kind of URL"
        ) from None
    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{url}: fsspec can't open it: {error}") from error


def matches_nothing(url: str) -> bool:
    """Whether a URL is a pattern that matches no file; False for what can't be asked."""
    with suppress(Exception):  # a file system of fsspec's raises what it likes
        return _matches(*file_system(url)) == []
    return False


def _matches(system: Any, inside: str) -> list[str] | None:
    """What a path matches; None if it is no pattern: it has no sign of one, or is there as it stands."""
    is_pattern = any(sign in inside for sign in "*?[") and not system.exists(inside)
    return sorted(system.glob(inside)) if is_pattern else None


def files_of(url: str, pattern: bool = True) -> Iterator[tuple[str, str]]:
    """The files that a URL stands for, itself, those below it or those that it matches, with their names below it.

    Names are the other side's: they may be anything.

    Args:
        url: of a file, a folder, or a pattern that is no file of that name.
        pattern: whether it may be one.

    Raises:
        FileNotFoundError: it is a pattern that matches nothing. Exception: whatever its file system raises.
    """
    system, inside = file_system(url)
    if pattern and (matched := _matches(system, inside)) is not None:
        if not matched:
            raise FileNotFoundError("there is no such file, and as a pattern it matches none")
        found, root = matched, ""
    elif system.isdir(inside):
        found, root = sorted(system.find(inside)), inside.rstrip("/") + "/"
    else:
        yield url, inside.rsplit("/", 1)[-1]
        return
    links = url.split("::")
    own = next(place for place, link in enumerate(links) if "://" in link)  # the one that found them
    for path in found:
        name = path.removeprefix(root) if root else path.rsplit("/", 1)[-1]
        yield "::".join([*links[:own], system.unstrip_protocol(path), *links[own + 1 :]]), name
