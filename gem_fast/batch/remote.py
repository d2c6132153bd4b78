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


def matched(url: str) -> list[tuple[str, str]] | None:
    """The files that a URL matches as a pattern, with their names, as `files_of` gives them.

    None for what is no pattern: it has no sign of one, is there as it stands, or can't be asked.
    """
    with suppress(Exception):  # a file system of fsspec's raises what it likes
        system, inside = file_system(url)
        if any(sign in inside for sign in "*?[") and not system.exists(inside):
            return [(_found(url, system, path), path.rsplit("/", 1)[-1]) for path in sorted(system.glob(inside))]
    return None


def files_of(url: str) -> Iterator[tuple[str, str]]:
    """The files that a URL stands for, itself or those below it, with their names below it.

    Names are the other side's: they may be anything.

    Raises:
        Exception: whatever its file system raises.
    """
    system, inside = file_system(url)
    if not system.isdir(inside):
        yield url, inside.rsplit("/", 1)[-1]
        return
    root = inside.rstrip("/") + "/"
    for path in sorted(system.find(inside)):
        yield _found(url, system, path), path.removeprefix(root)


def _found(url: str, system: Any, path: str) -> str:
    """The URL of a file that a URL's file system has found: where it is a chain, with the link's others."""
    links = url.split("::")
    own = next(place for place, link in enumerate(links) if "://" in link)  # the one that found it
    return "::".join([*links[:own], system.unstrip_protocol(path), *links[own + 1 :]])
