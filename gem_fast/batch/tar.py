"""The members of a tar archive by their headers alone: nothing is unpacked, and no header is believed.

Source: POSIX.1-2024, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar for long names.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ..images.formats import why_compressed

_BLOCK = 512
_MAGIC = (257, b"ustar")
_LONGEST = 1 << 20  # bytes of a header that carries names
_REFUSED = {
    b"1": "a link",
    b"2": "a link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"S": "a sparse file",
}
_SPARSE, _SPARSE_NAME = b"S", b"GNU.sparse.name"
_FILES = (b"0", b"\0", b"7")
_FOLDERS = (b"5", b"D")  # the second of GNU's incremental archives, with a list of what is in it
_LABELS = (b"g", b"K", b"V")  # of the archive, or of a link
_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")  # whatever their size says, as other readers have it


@dataclass(frozen=True)
class Member:
    """A member: its name, where it lies, and why it is not to be read, if so."""

    name: str
    offset: int
    size: int
    refused: str | None = None


def members(file: BinaryIO) -> Iterator[Member]:
    """The files of an archive in their order, and what is refused: links, devices, names that lead out of a folder,
    sizes that the archive does not have. What comes behind a damaged header is found by its own."""
    end, place = file.seek(0, os.SEEK_END), 0
    longer: dict[bytes, bytes] = {}  # of the next member: its path and size by an earlier header, or that it is sparse
    while place + _BLOCK <= end:
        file.seek(place)
        head = file.read(_BLOCK)
        if not head.strip(b"\0"):
            place += _BLOCK
            continue
        if not _is_header(head):
            yield Member(f"byte {place}", place, 0, "a damaged header of the archive")
            place, longer = _next_header(file, place + _BLOCK, end), {}
            continue
        kind, size = head[156:157], _number(longer.get(b"size", head[124:136]), decimal=b"size" in longer)
        start = place + _BLOCK
        name = _text(longer.get(b"path") or _ustar_name(head))
        size = 0 if kind in _WITHOUT_CONTENT else size
        if size is None or start + size > end:
            claim = "no size" if size is None else f"{size:,} bytes, more than the archive has"
            yield Member(name, start, 0, f"its header claims {claim}")
            place, longer = _next_header(file, start, end), {}
            continue
        place = start + -(-size // _BLOCK) * _BLOCK
        if kind in (b"x", b"L"):
            if size > _LONGEST:
                yield Member(f"byte {start}", start, 0, f"a header of {size:,} bytes")
                continue
            content = file.read(size)
            longer |= {b"path": content.rstrip(b"\0")} if kind == b"L" else _pax(content)
            continue
        if kind in _LABELS:
            continue
        kind = _SPARSE if _SPARSE in longer else kind
        longer = {}
        if kind in _FOLDERS or (kind in _FILES and name.endswith("/")):  # the second before POSIX
            continue
        unsafe = why_unsafe(name)
        reason = _REFUSED.get(kind) or unsafe or (None if kind in _FILES else f"of an unknown kind {kind!r}")
        yield Member(name if unsafe else _plain(name), start, size, reason)
    if place < end:
        yield Member(f"byte {place}", place, 0, "the archive ends within a header")


def why_packed(file: BinaryIO) -> str | None:
    """Why an archive can't be read that is compressed; None where it starts with a member's header."""
    file.seek(0)
    head = file.read(_BLOCK)
    return None if _is_header(head) else why_compressed(head)


def why_unsafe(name: str) -> str | None:
    """Why a name from an archive can't name an output; None if it can."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", name):
        return "an absolute name"
    if ".." in re.split(r"[\\/]", name):
        return "a name that leads out of its folder"
    return None if _plain(name) and "\0" not in name else "not a name of a file"


def _plain(name: str) -> str:
    """Without what `tar` keeps of folders that were given as `photos/.` or `photos//`."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _is_header(head: bytes) -> bool:
    """Whether the sum of its bytes is the one it states."""
    stated = _number(head[148:156])
    return stated == sum(head[:148]) + 8 * 32 + sum(head[156:])


def _next_header(file: BinaryIO, place: int, end: int) -> int:
    """Where the next block lies that has a header's sum; the archive's end if there is none."""
    offset, magic = _MAGIC
    while place + _BLOCK <= end:
        file.seek(place)
        blocks = file.read(_BLOCK << 11)
        found = blocks.find(magic)
        while found >= 0:
            start = found - offset
            if start >= 0 and start % _BLOCK == 0 and _is_header(blocks[start : start + _BLOCK]):
                return place + start
            found = blocks.find(magic, found + 1)
        place += len(blocks) // _BLOCK * _BLOCK
    return end


def _number(field: bytes, decimal: bool = False) -> int | None:
    """A number in octal or, from GNU tar, binary; None if it is none or below 0."""
    if not decimal and field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits or b"0", 10 if decimal else 8) if digits.isdigit() or not digits else None
    except ValueError:
        return None


def _ustar_name(head: bytes) -> bytes:
    name, prefix = head[:100].split(b"\0")[0], head[345:500].split(b"\0")[0]
    return prefix + b"/" + name if prefix and head[257:263] == b"ustar\0" else name


def _pax(content: bytes) -> dict[bytes, bytes]:
    """Path and size, where the header has them, and `_SPARSE` where what follows has holes, as GNU tar says it."""
    found, place = {}, 0
    while match := re.match(rb"(\d{1,7}) ([^=]{1,400})=", content[place : place + 512]):
        length = int(match[1])
        if length <= match.end():
            break
        if match[2] in (b"path", b"size", _SPARSE_NAME):
            found[match[2]] = content[place + match.end() : place + length].removesuffix(b"\n")
        if match[2].startswith(b"GNU.sparse."):
            found[_SPARSE] = b""
        place += length
    return found | ({b"path": found[_SPARSE_NAME]} if _SPARSE_NAME in found else {})


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
