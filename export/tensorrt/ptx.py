"""The kernels compiled to PTX that TensorRT can launch: no GPU and no driver is needed.

TensorRT passes a kernel its inputs, the sizes and its outputs. Triton's entries end with two pointers more, to scratch
that these kernels don't use, so the pair is taken off. Whether TensorRT asks the driver for more than 48 KiB of dynamic
shared memory is not documented, so tiles shrink until they need no more.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from gem_fast.kernels.ahead_of_time import compile_ahead
from gem_fast.kernels.attention.triton.tiles import Device, Tile, split_width, steepest, tile_for

SHARED_LIMIT = 49_152  # bytes that any kernel may use without asking
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
# The least PTX that has the architecture: an older driver reads it than that of the compiler's own.
_PTX_VERSIONS = {"sm_100": 86, "sm_120": 87}
_LEAST_PTX = 80  # which has sm_80 to sm_90a
_ENTRY = re.compile(r"(\.visible \.entry (\w+)\()(.*?)(\n\))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is fixed when the engine is built: `projections` is a mask of q = 1, k = 2 and v = 4."""

    arch: str
    dtype: torch.dtype
    heads: int
    width: int
    projections: int

    @property
    def chosen(self) -> list[int]:
        return [i for i in range(3) if self.projections >> i & 1]

    @property
    def parts(self) -> tuple[int, int]:
        return split_width(self.width)

    def constants(self, kernel: Any, tile: Tile) -> dict[str, Any]:
        """Those that the kernel asks for."""
        chosen = self.chosen
        known = {
            "P": len(chosen), "H": self.heads, "D": self.width, "FIRST": chosen[0],
            "STEP": chosen[1] - chosen[0] if len(chosen) > 1 else 1,
            "MAIN": self.parts[0], "REST": self.parts[1], "ROWS": tile.rows, "KEYS": tile.keys,
            "STEEPEST": steepest(self.dtype, "ieee"), "PRECISION": "ieee",
        }  # fmt: skip
        return {name: value for name, value in known.items() if name in kernel.arg_names}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel as TensorRT takes it, and the tile that it was compiled for."""

    name: str
    ptx: str
    threads: int
    shared: int
    tile: Tile


def tactics(problem: Problem, operation: str) -> tuple[Tile, ...]:
    """The tiles that TensorRT may time: that of the table, and one of half its rows for small grids."""
    if operation == "normalize":
        return (Tile(64, 0, 4, 1), Tile(32, 0, 4, 1))
    tile = tile_for(Device(problem.arch, 1), operation, sum(problem.parts), problem.dtype)
    assert tile is not None
    return tile, replace(tile, rows=tile.rows // 2, warps=4)


def compile_tactic(problem: Problem, operation: str, tile: Tile) -> Compiled:
    """PTX of `normalize`, `refine` or `assign` for the largest tile, from this one down, that fits in 48 KiB."""
    for smaller in _shrinking(tile):
        compiled = _compile(problem, operation, smaller)
        if compiled.shared <= SHARED_LIMIT:
            return compiled
    raise ValueError(f"no tile of {operation} for heads of {problem.width} channels fits in 48 KiB of shared memory")


def _shrinking(tile: Tile) -> Iterator[Tile]:
    """Fewer stages first, then fewer keys, then fewer rows."""
    yield tile
    while tile.stages > 1 or tile.keys > 16 or tile.rows > 16:
        if tile.stages > 1:
            tile = replace(tile, stages=tile.stages - 1)
        elif tile.keys > 16:
            tile = replace(tile, keys=tile.keys // 2)
        else:
            tile = replace(tile, rows=tile.rows // 2)
        yield tile


def _compile(problem: Problem, operation: str, tile: Tile) -> Compiled:
    from . import kernels

    kernel = getattr(kernels, f"gem_{operation}")
    constants = problem.constants(kernel, tile)
    options = tile.options | {"ptx_version": _PTX_VERSIONS.get(problem.arch, _LEAST_PTX)}
    binary = compile_ahead(problem.arch, kernel, constants, TYPES[problem.dtype], options)
    meta = binary.metadata
    if meta.global_scratch_size or getattr(meta, "profile_scratch_size", 0) or meta.num_ctas != 1:  # before Triton 3.5
        raise ValueError(f"{operation} asks for scratch memory or clusters, which a TensorRT plugin does not get")
    count = len(kernel.arg_names) - len(constants)
    return Compiled(meta.name, without_scratch(binary.asm["ptx"], count), 32 * meta.num_warps, meta.shared, tile)


def without_scratch(ptx: str, count: int) -> str:
    """PTX whose entry has its first `count` parameters only; ValueError if one of the rest is read."""
    entry = _ENTRY.search(ptx)
    if entry is None:
        raise ValueError("the PTX has no visible entry")
    parameters = entry[3].split(",\n")
    for index in range(count, len(parameters)):
        if len(re.findall(rf"\b{entry[2]}_param_{index}\b", ptx)) != 1:
            raise ValueError(f"{entry[2]} reads its parameter {index}, which TensorRT does not pass")
    return ptx[: entry.start(3)] + ",\n".join(parameters[:count]) + ptx[entry.end(3) :]
