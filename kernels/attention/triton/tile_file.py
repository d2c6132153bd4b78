"""Tiles measured on the GPU at hand by `gem-fast tune`, and the file that holds them.

The file is JSON: `{"gem_fast_tiles": 1, "device": …, "triton": …, "entries": [{"operation", "kind", "width", "N",
"heads", "tile": [rows, keys, warps, stages] or null, "ms", "built_in_ms"}, …]}`, `kind` one of `KINDS`.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gem_fast.kernels.user_cache import user_file

from .tiles import TABLE, Tile

VARIABLE = "GEM_FAST_TILES"
OFF = "off"
OPERATIONS = tuple(dict.fromkeys(name for bits in TABLE.values() for entries in bits.values() for name in entries))
KINDS = ("bfloat16", "float16", "float32", "tf32")
_KINDS_BEFORE = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}  # as files of earlier versions have them
_OPTIONAL = ("assign_in_place", "resident")  # null: another way was faster
_FORMAT = 1


class TileFileError(ValueError):
    """A tile table that can't be used; the message names the file and what would be right."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a tile is chosen for: `heads` is images × heads, `width` that of a packed head, `kind` the arithmetic."""

    kind: str
    width: int
    N: int
    heads: int


@dataclass(frozen=True, slots=True)
class Entry:
    """The tile that was fastest for a shape; None if doing without that operation was faster. Medians in ms."""

    operation: str
    shape: Shape
    tile: Tile | None
    ms: float
    built_in_ms: float

    def distance(self, shape: Shape) -> float:
        """How far a shape is from the measured one, in doublings of tokens or heads."""
        return max(abs(math.log2(shape.N / self.shape.N)), abs(math.log2(shape.heads / self.shape.heads)))


@dataclass(frozen=True, slots=True)
class TileTable:
    """Entries measured on one kind of GPU with one version of Triton."""

    device: str
    triton: str
    entries: tuple[Entry, ...] = ()

    def find(self, operation: str, shape: Shape) -> Entry | None:
        """The nearest entry of the same kind and width whose tokens and heads are within a factor of two, or None."""
        near = [
            (entry.distance(shape), entry)
            for entry in self.entries
            if entry.operation == operation and (entry.shape.kind, entry.shape.width) == (shape.kind, shape.width)
        ]
        nearest = min(near, key=lambda pair: pair[0], default=None)
        return nearest[1] if nearest and nearest[0] <= 1 else None

    def with_entries(self, entries: list[Entry]) -> "TileTable":
        """This table with more entries, which replace those of the same operation and shape."""
        merged = {(entry.operation, entry.shape): entry for entry in (*self.entries, *entries)}
        return TileTable(self.device, self.triton, tuple(merged.values()))

    def to_json(self) -> str:
        lines = [
            json.dumps({"operation": e.operation, **asdict(e.shape), "tile": e.tile and [*asdict(e.tile).values()],
                        "ms": e.ms, "built_in_ms": e.built_in_ms})
            for e in self.entries
        ]  # fmt: skip
        head = {"gem_fast_tiles": _FORMAT, "device": self.device, "triton": self.triton}
        return json.dumps(head)[:-1] + ', "entries": [\n' + ",\n".join(lines) + "\n]}\n"


def default_path(device: str, triton_version: str) -> Path:
    """The user's own table file for a GPU's name and a version of Triton."""
    return user_file("tiles", device, triton_version)


def read_table(path: Path, device: str, triton_version: str) -> TileTable:
    """Read a table that was measured on this kind of GPU with this version of Triton.

    Raises:
        TileFileError: there is no such file, it is damaged, or it is for another GPU or version.
    """
    remedy = f"run `gem-fast tune`, delete it, or set {VARIABLE}={OFF}"
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or content.get("gem_fast_tiles") != _FORMAT:
            raise ValueError("it is not a table of gem-fast tune")
        table = TileTable(str(content["device"]), str(content["triton"]), tuple(map(_entry, content["entries"])))
    except OSError as error:
        raise TileFileError(f"the tile table {path} can't be read: {error.strerror}; {remedy}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TileFileError(f"the tile table {path} is damaged or foreign: {error}; {remedy}") from error
    if (table.device, table.triton) != (device, triton_version):
        measured, here = f"{table.device} with triton {table.triton}", f"{device} with triton {triton_version}"
        raise TileFileError(f"the tile table {path} was measured on {measured}, and this is {here}; {remedy}")
    return table


def _entry(record: dict[str, Any]) -> Entry:
    operation, tile = record["operation"], record["tile"]
    kind = str(record["kind"])
    shape = Shape(_KINDS_BEFORE.get(kind, kind), *(int(record[key]) for key in ("width", "N", "heads")))
    if operation not in OPERATIONS or shape.kind not in KINDS or min(shape.width, shape.N, shape.heads) < 1:
        raise ValueError(f"an entry is for {operation!r} of {shape}")
    if tile is None and operation not in _OPTIONAL:
        raise ValueError(f"{operation} of {shape} has no tile")
    return Entry(operation, shape, tile and _tile(tile), float(record["ms"]), float(record["built_in_ms"]))


def _tile(numbers: list[int]) -> Tile:
    rows, keys, warps, stages = numbers
    good = all(type(n) is int for n in numbers) and rows in (16, 32, 64, 128, 256) and keys in (16, 32, 64, 128, 256)
    if not good or warps not in (1, 2, 4, 8, 16) or not 1 <= stages <= 8:
        raise ValueError(f"{numbers} are not rows, keys, warps and stages")
    return Tile(rows, keys, warps, stages)
