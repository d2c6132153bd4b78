"""The native library of the CPU kernels: loaded once, or the reason why it is not."""

import ctypes
import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from sysconfig import get_config_var
from typing import Any

import torch  # its OpenMP runtime is what the library's undefined GOMP_parallel resolves to

PATHS = ("avx512_bf16", "avx512", "avx2")  # as the library numbers them, the fastest first
VARIABLE = "GEM_FAST_CPU"  # names the most that kernels may take of `PATHS`
_VNNI, _FAST_BFLOAT16, _PANELS = 3, 4, 5  # as `gem_fast_supports` numbers them
_INTERFACE = 6  # of the library, as `gem_fast_interface` tells it
_MOST = os.environ.get(VARIABLE) or PATHS[0]


def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library that the installation built beside this file, or why there is none."""
    if _MOST not in PATHS:
        return None, f"{VARIABLE} must be one of {', '.join(PATHS)}, got {_MOST!r}"
    file = Path(__file__).with_name(f"cpu_native{get_config_var('EXT_SUFFIX')}")  # other Pythons' may lie beside it
    if not file.exists():
        return None, "its native library was not built (that takes Linux on x86-64 and a C++ compiler at installation)"
    try:
        library = ctypes.CDLL(str(file))
        if library.gem_fast_interface() == _INTERFACE:
            return library, None
        return None, "its native library is of another version: install again"
    except (OSError, AttributeError) as error:
        return None, f"its native library does not load: {error}"


_LIBRARY, _MISSING = _load()


def _runs(feature: int, path: str) -> bool:
    """Whether the library and this CPU have a feature, and `GEM_FAST_CPU` allows the path that it goes with."""
    return (
        _LIBRARY is not None and PATHS.index(path) >= PATHS.index(_MOST) and bool(_LIBRARY.gem_fast_supports(feature))
    )


def paths() -> tuple[str, ...]:
    """The instruction sets that run here, the fastest first; none if the library is missing."""
    return tuple(path for number, path in enumerate(PATHS) if _runs(number, path))


_RUNNABLE = paths()


def why_missing() -> str | None:
    """Why nothing native can run on this machine, or None."""
    if _MISSING is None and not _RUNNABLE:
        return "this CPU has no AVX2 with FMA and F16C"
    return _MISSING


def why_no_vnni() -> str | None:
    """Why no native int8 product can run on this machine, or None."""
    lacking = "this CPU has no AVX-512 VNNI, the instructions that add up products of 8 bits without saturating"
    return _why_no(_VNNI, "AVX-512 VNNI", lacking)


@functools.cache
def why_no_panels() -> str | None:
    """Why linear layers in float32 are left to others on this machine, or None."""
    return _why_no(_PANELS, "AVX-512", "they were measured to be faster on CPUs of Intel with AVX-512 alone")


def _why_no(feature: int, instructions: str, lacking: str) -> str | None:
    """Why a feature of AVX-512 does not serve, or None; `lacking` is the reason where the CPU has it not."""
    if _LIBRARY is None or _runs(feature, "avx512"):
        return _MISSING
    if _LIBRARY.gem_fast_supports(feature):
        return f"{VARIABLE} is {_MOST}, which leaves out {instructions}"
    return lacking


def faster_dtype() -> torch.dtype:
    """bfloat16 where its products are faster than those of float32, else float32."""
    return torch.bfloat16 if _runs(_FAST_BFLOAT16, "avx512_bf16") else torch.float32


def choose_path(usable: Sequence[str], asked: str | None = None) -> str:
    """The instruction set asked for, or else the first of the usable ones that this CPU runs.

    Raises:
        ValueError: the one asked for is not usable or does not run here; the message says what does.
    """
    if why_missing():
        raise ValueError(f"the native kernel can't run: {why_missing()}")
    served = [path for path in usable if path in _RUNNABLE]
    if asked is not None and asked not in served:
        raise ValueError(f"this CPU does not run {asked!r} here; it runs {', '.join(served)}")
    return asked or served[0]


def call(function: str, *arguments: Any) -> None:
    """Call a function of the library that returns 0, or 1 if memory ran out.

    Raises:
        MemoryError: it did.
    """
    if getattr(_LIBRARY, function)(*arguments):
        raise MemoryError(f"no memory for the scratch of {function}")


def pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    """Where a tensor's first element lies; null for None. It holds the tensor, which may be a copy made for a call."""
    found = ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
    found.tensor = tensor  # type: ignore[attr-defined]
    return found


def int64s(numbers: Iterable[int]) -> ctypes.Array:
    """An array of C's int64_t."""
    values = tuple(numbers)
    return (ctypes.c_int64 * len(values))(*values)
