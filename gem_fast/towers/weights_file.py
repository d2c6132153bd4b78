"""From a file or its parts to a flat dictionary of tensors, whatever wraps them. Nothing in a file is ever run."""

import json
import mmap
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import ModelError
from .file_kinds import foreign_kind
from .stored import UnreadableError, check_shape
from .torch_file import read_torch_file
from .wrappers import plain_names, unwrapped

_MOST_HEADER = 100_000_000  # bytes of a safetensors header, as its own reader allows
_MOST_INDEX = 64 << 20
_MOST_SHARED = 16  # tensors of the same bytes, on the average: tied weights are two
_SAFETENSORS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_PART = re.compile(r"-\d{5}-of-\d{5}\.")


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the file that they are from.

    Attributes:
        path: the file, or the index of its parts.
        state: tensors by the names of the file, without wrappers and prefixes; views of the file where possible.
        scripted: it is a TorchScript archive.
        settings: names of numbers beside the tensors, such as OpenAI's `input_resolution`.
        mapped: the files in memory.
    """

    path: Path
    state: dict[str, Tensor]
    scripted: bool = False
    settings: frozenset[str] = frozenset()
    mapped: tuple[mmap.mmap, ...] = ()

    def release(self) -> None:
        """Take out of memory what was read of the files; the tensors read it again where they are looked at."""
        for each in self.mapped:
            if hasattr(mmap, "MADV_DONTNEED"):
                each.madvise(mmap.MADV_DONTNEED)


def read_weights(path: Path) -> Weights:
    """Read a `.safetensors`, torch or TorchScript file, or an index of such parts.

    Raises:
        ModelError: there is no such file, or it can't be read; the message says what it is.
    """
    if not path.is_file():
        fault = f"{path} is no regular file" if path.exists() else f"there is no file {path}"
        raise ModelError(f"weights: {fault}")
    try:
        return _read_parts(path) if path.name.endswith(".index.json") else _read_file(path)
    except UnreadableError as error:
        raise ModelError(f"weights: {path} {error}") from error
    except OSError as error:
        raise ModelError(f"weights: {path} can't be read: {error.strerror or error}") from error


def _read_file(path: Path) -> Weights:
    if index := _index_of(path):
        raise UnreadableError(f"is one part of several; give their index, {index}, or the folder")
    weights = _read_as_named(path)
    return replace(weights, state=plain_names(weights.state))


def _read_as_named(path: Path) -> Weights:
    """The file's tensors under its own names."""
    if path.stat().st_size == 0:
        raise UnreadableError("is empty, and so damaged: perhaps a download that did not begin")
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _MOST_HEADER:
        tensors, mapped = _read_safetensors(path)
        return Weights(path, unwrapped(tensors)[0], mapped=(mapped,))
    if start[:2] == b"PK" or start[:1] in b"\x80":
        stored = read_torch_file(path)
        described, settings = unwrapped(stored.content)
        tensors = {name: stored.tensor(name, value) for name, value in described.items()}
        if sum(tensor.nbytes for tensor in tensors.values()) > _MOST_SHARED * path.stat().st_size:
            raise UnreadableError("is damaged: its tensors lie over one another")
        return Weights(path, tensors, stored.scripted, settings, (stored.mapped,))
    if words := foreign_kind(path):
        raise UnreadableError(words)
    if path.suffix == ".safetensors":
        raise UnreadableError("is not a readable safetensors file: it has no header")
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        raise UnreadableError("is damaged: neither a file of torch nor of safetensors begins like it")
    raise UnreadableError("must be a .safetensors or .pt file")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], mmap.mmap]:
    """Views of the mapped file, whose header safetensors itself has checked."""
    try:
        with safe_open(str(path), framework="pt"), path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries: dict[str, Any] = json.loads(file.read(length))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except SafetensorError as error:
        reason = "it is cut short, perhaps an unfinished download" if _is_cut(path) else str(error)[:200]
        raise UnreadableError(f"is not a readable safetensors file: {reason}") from error
    entries.pop("__metadata__", None)
    return {name: _view(mapped, 8 + length, name, entry) for name, entry in entries.items()}, mapped


def _view(mapped: mmap.mmap, start: int, name: str, entry: dict[str, Any]) -> Tensor:
    dtype = _SAFETENSORS.get(entry["dtype"])
    if dtype is None:
        raise UnreadableError(f"is not a readable safetensors file: {name[:60]} is of the type {entry['dtype']}")
    check_shape(name, entry["shape"])
    first, last = entry["data_offsets"]
    if first == last:
        return torch.empty(entry["shape"], dtype=dtype)
    if (start + first) % dtype.itemsize:
        raw = torch.frombuffer(mapped, dtype=torch.uint8, count=last - first, offset=start + first)
        return raw.clone().view(dtype).view(entry["shape"])
    count = (last - first) // dtype.itemsize
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=start + first).view(entry["shape"])


def _is_cut(path: Path) -> bool:
    """Whether a safetensors file ends before its header does, or before the last tensor that the header names."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 8 + length > size:
            return True
        try:
            entries = json.loads(file.read(length))
            return 8 + length + max(entry["data_offsets"][1] for entry in entries.values() if "dtype" in entry) > size
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return False


def _read_parts(path: Path) -> Weights:
    """The tensors of all files that an index of Hugging Face's names."""
    state: dict[str, Tensor] = {}
    mapped: tuple[mmap.mmap, ...] = ()
    for name in parts_of(path):
        part = path.with_name(name)
        if not part.is_file():
            raise UnreadableError(f"names a part {name}, which is not beside it")
        try:
            read = _read_as_named(part)
        except UnreadableError as error:
            raise UnreadableError(f"names a part {name}, which {error}") from error
        if again := sorted(state.keys() & read.state.keys()):
            raise UnreadableError(f"names a part {name}, which holds {again[0][:60]!r} again; keep one")
        state, mapped = state | read.state, mapped + read.mapped
    return Weights(path, plain_names(state), mapped=mapped)


def parts_of(index: Path) -> list[str]:
    """The files that an index of Hugging Face's names, which lie beside it; UnreadableError if it is no index."""
    if index.stat().st_size > _MOST_INDEX:
        raise UnreadableError("is too large for an index of parts")
    try:
        names = sorted({str(name) for name in json.loads(index.read_text())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableError("is not an index of parts: it has no weight_map") from error
    for name in names:
        if not name or Path(name).name != name:
            raise UnreadableError(f"names a part {name[:80]!r}, which is not beside it")
    return names


def _index_of(path: Path) -> str | None:
    """The index beside a part such as `model-00001-of-00002.safetensors`."""
    if not _PART.search(path.name):
        return None
    index = _PART.sub(".", path.name) + ".index.json"
    return index if (path.parent / index).is_file() else None
