"""Which tile a call gets: a measured one near its shape, else the built-in one.

Measured tiles come from the first of:
1. the file that the environment variable `GEM_FAST_TILES` names; `off` means the built-in table of `tiles.py`;
2. `gem_fast/tiles-DEVICE-triton-VERSION.json` in `$XDG_CACHE_HOME` or `~/.cache`.
"""

import functools
import os
from pathlib import Path

import torch

from .tile_file import OFF, OPERATIONS, VARIABLE, Entry, Shape, TileFileError, TileTable, default_path, read_table
from .tiles import Device, Tile, precision, tile_for
from .tiles import is_resident as is_resident_built_in


def path_in_use(device: str, triton_version: str) -> Path | None:
    """The table file that serves a GPU, or None for the built-in table."""
    named = os.environ.get(VARIABLE)
    if named:
        return None if named == OFF else Path(named)
    try:
        path = default_path(device, triton_version)
        return path if path.exists() else None
    except (OSError, RuntimeError):  # no home folder, or one that can't be read
        return None


def table_in_use(device: str) -> TileTable | None:
    """The measured table for a GPU, or None for the built-in one; looked for once a process.

    Raises:
        TileFileError: the file that `GEM_FAST_TILES` names can't be used. One that nobody named is passed over.
    """
    return _read_once(device, os.environ.get(VARIABLE))


@functools.cache
def _read_once(device: str, named: str | None) -> TileTable | None:
    import triton

    path = path_in_use(device, triton.__version__)
    try:
        return read_table(path, device, triton.__version__) if path else None
    except TileFileError:
        if named:
            raise
        return None


def forget() -> None:
    """Look for tables again at the next call."""
    _read_once.cache_clear()
    _tiles_of.cache_clear()


def describe(device: str) -> str:
    """Which table serves a GPU, in a line: `built in`, the measured one's file, or what is wrong with that."""
    import triton

    path = path_in_use(device, triton.__version__)
    if path is None:
        return "built in"
    try:
        return f"{len(read_table(path, device, triton.__version__).entries)} measured, {path}"
    except TileFileError as error:
        return str(error)


def kind_of(device: Device, dtype: torch.dtype) -> str:
    """The type's name, or `tf32` where torch's matmul precision allows it for float32."""
    return "tf32" if precision(device, dtype) == "tf32" else str(dtype).removeprefix("torch.")


class ChosenTiles(dict[str, Tile | None]):
    """The tile of each operation, None for what a call should do without; one like another only if it is that one."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def tiles_of(device: Device, heads: int, N: int, width: int, dtype: torch.dtype) -> ChosenTiles:
    """The tiles of a call, the same of the same; that of `resident` is None but where one launch does everything."""
    return _tiles_of(device, heads, N, width, dtype, precision(device, dtype), os.environ.get(VARIABLE))


@functools.lru_cache(maxsize=4096)
def _tiles_of(
    device: Device, heads: int, N: int, width: int, dtype: torch.dtype, precision: str, named: str | None
) -> ChosenTiles:
    found = ChosenTiles({operation: chosen_tile(device, operation, heads, N, width, dtype) for operation in OPERATIONS})
    if not is_resident(device, heads, N, width, dtype):
        found["resident"] = None
    return found


def _found(device: Device, operation: str, heads: int, N: int, width: int, dtype: torch.dtype) -> Entry | None:
    table = table_in_use(device.name)
    return table.find(operation, Shape(kind_of(device, dtype), width, N, heads)) if table else None


def chosen_tile(device: Device, operation: str, heads: int, N: int, width: int, dtype: torch.dtype) -> Tile | None:
    """The measured tile for a call, else the built-in one; None where the operation should not be used."""
    entry = _found(device, operation, heads, N, width, dtype)
    return entry.tile if entry else tile_for(device, operation, width, dtype)


def is_resident(device: Device, heads: int, N: int, width: int, dtype: torch.dtype) -> bool:
    """Whether one launch does everything: as measured, else by the rule of `tiles.is_resident`."""
    entry = _found(device, "resident", heads, N, width, dtype)
    if entry is None:
        return is_resident_built_in(device, heads, N, width, dtype)
    return entry.tile is not None and entry.tile.rows >= N
