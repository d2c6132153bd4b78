"""Which tile each kernel gets, by architecture, type and head width: one table, and no autotuning.

Most entries were chosen from compiled code: the largest tile that spills no more than a few registers and does not
outgrow the smallest shared memory of its family; those of Hopper's common widths were measured. `make gpu-report`
compiles them all and prints what they use.
A table that `gem-fast tune` measured goes before it: see `tile_choice.py`.
"""

import functools
from dataclasses import dataclass
from typing import TypeAlias

import torch
from gem_fast.kernels.triton_host import architecture, tf32_is_allowed, triton_version


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows of the output and keys of a step that a program holds, with its warps and pipeline stages."""

    rows: int
    keys: int
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, int]:
        return {"num_warps": self.warps, "num_stages": self.stages}


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU: its architecture as the compiler names it (`sm_90`, `gfx942`), its multiprocessors and its full name."""

    arch: str
    multiprocessors: int
    name: str = ""


INTERPRETER = Device("interpreter", 1, "interpreter")


def device_of(device: torch.device) -> Device:
    """What the tile tables need to know of a device; off the GPU it is Triton's interpreter."""
    if device.type != "cuda" or not torch.cuda.is_initialized():
        return INTERPRETER
    return _device(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _device(index: int) -> Device:
    device = torch.device("cuda", index)
    properties = torch.cuda.get_device_properties(device)
    return Device(str(architecture(device)), properties.multi_processor_count, properties.name)


# Architectures that multiply matrices in the same way; one that isn't named here gets the tiles of its neighbours.
FAMILIES = {
    "sm_80": "mma", "sm_86": "mma", "sm_89": "mma", "sm_120": "mma", "sm_90": "wgmma", "sm_100": "tcgen05",
    "gfx90a": "mfma", "gfx942": "mfma", "interpreter": "interpreter",
}  # fmt: skip

# Operation -> (widest head, tile), narrowest first.
Entries: TypeAlias = dict[str, tuple[tuple[int, Tile], ...]]

_L, _M, _S = Tile(128, 64, 8, 3), Tile(128, 64, 8, 2), Tile(128, 32, 8, 2)
_HEAD = Tile(64, 64, 4, 1)

# Exact float32 products run outside the tensor cores and fill the registers: no head is resident, none is normalised
# while it is read.
_FP32: Entries = {
    "refine": ((128, Tile(64, 32, 8, 2)),),
    "assign": ((128, Tile(64, 32, 8, 2)),),
    "attend": ((96, Tile(16, 32, 4, 1)), (128, Tile(32, 16, 8, 1))),
    "attend_near": ((128, Tile(32, 16, 8, 1)),),
}

# Family -> bits of an element -> entries.
TABLE: dict[str, dict[int, Entries]] = {
    # The fastest of all candidates on an H100, for heads of 64 and 80 channels and 197 to 1025 tokens.
    "wgmma": {
        16: {
            "refine": ((64, Tile(64, 32, 4, 3)), (80, Tile(64, 64, 4, 3)), (128, _L)),
            "assign": ((64, Tile(64, 32, 4, 3)), (80, Tile(64, 64, 4, 4)), (128, _L)),
            "attend": ((80, Tile(64, 64, 4, 3)), (128, _S)),
            "attend_near": ((64, _M), (128, _S)),
            "resident": ((64, Tile(128, 128, 8, 1)), (128, _HEAD)),
        },
        32: _FP32,
    },
    "tcgen05": {
        16: {
            "refine": ((128, _L),),
            "assign": ((128, _L),),
            "assign_in_place": ((96, _L), (128, _M)),
            "attend": ((64, _L), (96, _S), (128, Tile(64, 32, 8, 2))),
            "attend_near": ((96, Tile(64, 32, 8, 2)), (128, Tile(64, 16, 8, 1))),
            "resident": ((64, Tile(128, 128, 8, 1)), (128, _HEAD)),
        },
        32: _FP32,
    },
    "mma": {
        16: {
            "refine": ((96, Tile(128, 64, 4, 3)), (128, _L)),
            "assign": ((80, _L), (96, _M), (128, Tile(64, 32, 4, 2))),
            "assign_in_place": ((64, _L), (80, _S), (96, Tile(64, 32, 8, 2)), (128, Tile(32, 32, 4, 2))),
            "attend": ((64, _L), (80, _M), (96, _S), (128, Tile(64, 32, 8, 2))),
            "attend_near": ((64, _S), (96, Tile(32, 32, 8, 2)), (128, Tile(64, 32, 8, 2))),
            "resident": ((96, Tile(64, 64, 8, 1)),),
        },
        32: _FP32 | {"assign": ((96, Tile(64, 32, 8, 2)), (128, Tile(32, 32, 8, 2)))},
    },
    "mfma": {
        16: {
            "refine": ((128, Tile(128, 64, 4, 2)),),
            "assign": ((128, Tile(128, 64, 4, 2)),),
            "assign_in_place": ((128, Tile(128, 64, 4, 2)),),
            "attend": ((128, Tile(128, 64, 4, 2)),),
            "attend_near": ((128, Tile(64, 32, 4, 2)),),
            "resident": ((128, _HEAD),),
        },
        32: _FP32 | {"assign": ((80, Tile(64, 32, 8, 2)), (128, Tile(64, 16, 8, 2)))},
    },
    "interpreter": {
        bits: {
            operation: ((128, Tile(64, 32, 4, 2)),)
            for operation in ("refine", "assign", "assign_in_place", "attend", "attend_near", "resident")
        }
        for bits in (16, 32)
    },
}


# With Triton before these, whose code takes more registers, in place of the entries above of which some spill there.
BEFORE = {"mma": (3, 7), "wgmma": (3, 6), "tcgen05": (3, 7)}
OLDER: dict[str, dict[int, Entries]] = {
    "mma": {
        16: {
            "refine": ((64, Tile(128, 64, 4, 3)), (128, _L)),
            "assign": ((64, _L), (96, _S), (128, Tile(64, 32, 8, 2))),
            "assign_in_place": ((80, _S), (128, Tile(32, 32, 8, 2))),
            "attend": ((64, _L), (96, _S), (128, Tile(64, 32, 8, 2))),
            "attend_near": ((64, Tile(64, 32, 8, 2)), (96, Tile(32, 32, 8, 2)), (128, Tile(64, 32, 8, 2))),
            "resident": ((64, Tile(64, 64, 8, 1)),),
        },
        32: {"assign": ((128, Tile(32, 32, 8, 2)),), "attend": ((128, Tile(16, 16, 4, 1)),)},
    },
    "wgmma": {
        16: {
            "assign": ((64, Tile(64, 32, 4, 3)), (80, Tile(64, 64, 4, 4)), (128, _S)),
            "attend": ((80, Tile(64, 64, 4, 3)), (128, _M)),
            "attend_near": ((64, _M), (128, Tile(64, 32, 8, 2))),
            "resident": ((64, Tile(128, 128, 8, 1)),),
        },
        32: {"attend": ((128, Tile(16, 16, 4, 1)),)},
    },
    "tcgen05": {
        16: {
            "assign_in_place": ((96, _L), (128, Tile(64, 32, 8, 2))),
            "resident": ((64, Tile(64, 64, 8, 1)),),
        },
        32: {"assign": ((128, Tile(32, 32, 8, 2)),), "attend": ((128, Tile(16, 16, 4, 1)),)},
    },
}


def entries_of(family: str, bits: int) -> Entries:
    """The entries that hold with this version of Triton."""
    old = family in BEFORE and triton_version() < BEFORE[family]
    return TABLE[family][bits] | OLDER[family][bits] if old else TABLE[family][bits]


@functools.lru_cache(maxsize=1024)
def tile_for(device: Device, operation: str, width: int, dtype: torch.dtype) -> Tile | None:
    """The tile of `operation` (a key of the table) for packed heads of `width` channels; None if none is good."""
    family = FAMILIES.get(device.arch) or ("mfma" if device.arch.startswith("gfx") else "mma")
    entries = entries_of(family, dtype.itemsize * 8).get(operation, ())
    return next((tile for widest, tile in entries if width <= widest), None)


def is_resident(device: Device, heads: int, N: int, width: int, dtype: torch.dtype) -> bool:
    """Whether one launch does everything, one program a head, instead of one launch an iteration.

    Up to 64 tokens the tiled kernels would have a single tile of rows too: only launches are saved. Beyond, a program
    works alone on what several would share, so there must be a head for every multiprocessor.
    """
    tile = tile_for(device, "resident", width, dtype)
    if tile is None or tile.rows < N:
        return False
    return N <= 64 or heads >= device.multiprocessors


@functools.cache
def split_width(D: int) -> tuple[int, int]:
    """Two powers of two that hold D channels, the second 0 if one is as good: 80 -> (64, 16), 104 -> (128, 0)."""
    whole = max(16, 1 << (D - 1).bit_length())
    main = whole // 2
    rest = max(16, 1 << (D - main - 1).bit_length()) if main < D else 0
    return (main, rest) if main >= 16 and main + rest < whole else (whole, 0)


def precision(device: Device, dtype: torch.dtype) -> str:
    """How float32 is multiplied: exactly, or in TF32 where torch's matmul precision and the device allow it."""
    if dtype != torch.float32 or FAMILIES.get(device.arch) not in ("mma", "wgmma", "tcgen05"):
        return "ieee"
    return "tf32" if tf32_is_allowed() else "ieee"


def steepest(dtype: torch.dtype, precision: str) -> float:
    """The largest inverse temperature that a type resolves; beyond it, the rounding of |p|² could overflow exp."""
    if dtype == torch.float32:
        return 2.0**16 if precision == "tf32" else 2.0**26
    return 2.0**13
