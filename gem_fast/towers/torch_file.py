"""Torch's files, zip archives and those from before them, read without torch's own loader and without running anything.

Everything is checked against the size of the file before it is read, and tensors are views of the mapped file.
"""

import io
import mmap
import struct
import zipfile
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .pickled import MOST_BYTES, read_pickle
from .stored import Storage, StoredTensor, UnreadableError, check_shape, damaged

_MOST_DIRECTORY = 64 << 20  # bytes of a zip's list of members: 600,000 of them
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file from before torch 1.6
_LEGACY_PROTOCOL = 1001


@dataclass(frozen=True)
class TorchFile:
    """What a file of torch describes, and where its storages lie."""

    content: Any
    scripted: bool  # a TorchScript archive
    mapped: mmap.mmap
    places: dict[str, int]  # of each storage, in bytes from the start of the file
    aligned: dict[tuple[str, torch.dtype], Tensor] = field(default_factory=dict)  # copies of storages that are not

    def tensor(self, name: str, stored: StoredTensor) -> Tensor:
        """A view of the mapped file; UnreadableError, with the name, if it does not lie within its storage."""
        check_shape(name, stored.shape)
        storage, dtype = stored.storage, _dtype(stored.dtype)
        elements: int = prod(stored.shape)
        count = storage.size * _dtype(storage.dtype).itemsize // dtype.itemsize
        last = stored.offset + sum((n - 1) * step for n, step in zip(stored.shape, stored.strides, strict=True))
        if elements and last >= count:
            raise damaged(f"the tensor {name[:60]} reaches beyond its storage")
        if elements > count:
            raise UnreadableError(
                f"has an expanded tensor, {name[:60]}, of more numbers than it stores: save it .contiguous()"
            )
        if not elements:
            return torch.empty(stored.shape, dtype=dtype)
        return self._flat(storage.key, dtype, count).as_strided(stored.shape, stored.strides, stored.offset)

    def _flat(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """A storage's numbers; copied once for all its tensors where they are not aligned, as before the archives."""
        place = self.places[key]
        if place % dtype.itemsize == 0:
            return torch.frombuffer(self.mapped, dtype=dtype, count=count, offset=place)
        if (key, dtype) not in self.aligned:
            flat = torch.frombuffer(self.mapped, dtype=torch.uint8, count=count * dtype.itemsize, offset=place)
            self.aligned[key, dtype] = flat.clone().view(dtype)
        return self.aligned[key, dtype]


def read_torch_file(path: Path) -> TorchFile:
    """Read the description of what is in a file, not the tensors.

    Raises:
        UnreadableError: it is no file of torch, damaged, or holds more than tensors.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return _read_archive(path, mapped) if mapped[:2] == b"PK" else _read_legacy(mapped)


def _read_archive(path: Path, mapped: mmap.mmap) -> TorchFile:
    members = _members(path, mapped)
    found = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(found) != 1:
        some = ", ".join(repr(name) for name in list(members)[:3]) or "nothing"
        raise UnreadableError(f"is a zip archive of other things ({some})")
    folder = found[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in members and _bytes(mapped, members[f"{folder}byteorder"]) == b"big":
        raise UnreadableError("was saved on a big-endian machine; save it again on this kind of machine")
    content, storages = read_pickle(io.BytesIO(_bytes(mapped, members[found[0]])))
    places = {}
    for storage in storages.values():
        member = members.get(f"{folder}data/{storage.key}")
        if member is None or member.file_size < _size(storage):
            raise damaged(f"the archive's member data/{storage.key[:20]} is missing or too short")
        places[storage.key] = _start(mapped, member)
    return TorchFile(content, f"{folder}constants.pkl" in members, mapped, places)


def _members(path: Path, mapped: mmap.mmap) -> dict[str, zipfile.ZipInfo]:
    """The archive's members, none compressed where it is read, together no larger than the file."""
    if _directory_size(mapped) > min(_MOST_DIRECTORY, len(mapped)):
        raise damaged("the archive's list of members has an impossible size")
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise damaged(f"the archive is cut short or damaged ({str(error)[:80]})") from error
    stored = {m.filename: m for m in listed if m.compress_type == zipfile.ZIP_STORED and not m.flag_bits & 1}
    if any(m.filename not in stored and (m.filename.endswith("/data.pkl") or "/data/" in m.filename) for m in listed):
        raise UnreadableError("is a compressed archive, which torch never writes; pack it again without compression")
    if sum(member.file_size for member in stored.values()) > len(mapped):
        raise damaged("the archive's members are larger than the file")
    return stored


def _directory_size(mapped: mmap.mmap) -> int:
    """Bytes of a zip's list of members, as the record at its end says."""
    end = mapped.rfind(b"PK\x05\x06", max(0, len(mapped) - 65557))
    if end < 0 or end + 22 > len(mapped):
        raise damaged("the end of the archive is missing: an unfinished download or copy")
    size: int = struct.unpack_from("<I", mapped, end + 12)[0]
    wide = mapped.rfind(b"PK\x06\x06", max(0, end - 1024), end)
    if size == 0xFFFFFFFF and wide >= 0 and wide + 48 <= len(mapped):
        size = struct.unpack_from("<Q", mapped, wide + 40)[0]
    return size


def _start(mapped: mmap.mmap, member: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin, all of them inside the file."""
    header = member.header_offset
    if mapped[header : header + 4] != b"PK\x03\x04" or header + 30 > len(mapped):
        raise damaged("the archive is cut short or damaged")
    name, extra = struct.unpack_from("<HH", mapped, header + 26)
    start: int = header + 30 + name + extra
    if start + member.file_size > len(mapped):
        raise damaged("the archive is cut short")
    return start


def _bytes(mapped: mmap.mmap, member: zipfile.ZipInfo) -> bytes:
    if member.file_size > MOST_BYTES:
        raise damaged(f"its description has more than {MOST_BYTES >> 20} MB")
    start = _start(mapped, member)
    return mapped[start : start + member.file_size]


def _read_legacy(mapped: mmap.mmap) -> TorchFile:
    """Three pickles of a header, one of the content, one of the storages' keys; then each storage behind its size."""
    stream = io.BytesIO(mapped[:MOST_BYTES])
    magic, _ = read_pickle(stream)
    if magic != _MAGIC:
        raise UnreadableError("is a plain pickle, not a file of torch")
    protocol, _ = read_pickle(stream)
    system, _ = read_pickle(stream)
    if protocol != _LEGACY_PROTOCOL or not isinstance(system, dict) or not system.get("little_endian"):
        raise UnreadableError("was saved by another protocol or on a big-endian machine")
    content, storages = read_pickle(stream)
    keys, _ = read_pickle(stream)
    if not isinstance(keys, list) or any(not isinstance(key, str) for key in keys) or {*keys} != set(storages):
        raise damaged("the list of its storages does not fit")
    place, places = stream.tell(), {}
    for key in keys:
        if place + 8 > len(mapped) or struct.unpack_from("<q", mapped, place)[0] != storages[key].size:
            raise damaged("a storage is cut short or of another size")
        places[key] = place + 8
        place += 8 + _size(storages[key])
    if place > len(mapped):
        raise damaged("the file is cut short")
    return TorchFile(content, False, mapped, places)


def _size(storage: Storage) -> int:
    return storage.size * _dtype(storage.dtype).itemsize


def _dtype(name: str) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return dtype
