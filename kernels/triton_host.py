"""What every Triton launcher asks of its machine. Importing this needs neither Triton nor a driver."""

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import sysconfig
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .gradients import wants_gradient

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Every kernel has been compiled for these, with its registers and shared memory looked at; only there is it taken
# without being asked for.
COMPILED = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx90a", "gfx942")
_INSTALLED = importlib.util.find_spec("triton") is not None
LEAST = (3, 3)  # of Triton: before, a kernel's tuple of constants does not compile
_PACKAGES = ("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-rocm", "triton-windows")


Found = TypeVar("Found", bound=Callable[..., Any])


def constant(ask: Found) -> Found:
    """`torch.compiler.assume_constant_result`, which imports Dynamo at once: twice the time of importing torch."""
    ask._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return ask


@constant
def tf32_is_allowed() -> bool:
    """Whether torch may multiply float32 in TF32; its older switch can't be read once the newer one was used."""
    matmul = torch.backends.cuda.matmul
    return bool(matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32)


def why_no_triton(tensor: Tensor, name: str, *others: Tensor | None) -> str | None:
    """The reason why no Triton kernel can take this tensor, called `name` by the caller, with others, or None."""
    if not _INSTALLED:
        return "triton is not installed"
    if old := why_too_old():
        return old
    if tensor.dtype not in DTYPES:
        return f"{tensor.dtype} is not one of float16, bfloat16 and float32"
    if wants_gradient(tensor, *others):
        return "it has no backward, and a gradient is required"
    if tensor.device.type == "cuda":
        reason = why_no_launch()
    else:
        reason = f"{name} is on {tensor.device.type}, not on a CUDA or ROCm device"
    return None if reason is None or _is_interpreted() else reason


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


@constant
def why_too_old() -> str | None:
    """The reason why this version of Triton compiles no kernel, or None."""
    return _too_old()


@constant
def why_no_launch() -> str | None:
    """The reason why Triton can't launch a kernel here, or None: it compiles what loads them, at the first launch."""
    return _missing_for_a_launch()


@functools.cache
def _too_old() -> str | None:
    if triton_version() >= LEAST:
        return None
    return (
        f"triton {_installed()} can't compile the kernels, which takes {'.'.join(map(str, LEAST))} (torch 2.7) or newer"
    )


@functools.cache
def triton_version() -> tuple[int, ...]:
    """Of Triton, the first two numbers."""
    return tuple(int(number) for number in re.findall(r"\d+", _installed())[:2])


def _installed() -> str:
    for package in _PACKAGES:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    import triton

    return str(triton.__version__)


@functools.cache
def _missing_for_a_launch() -> str | None:
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "triton needs a C compiler to launch kernels: gcc, clang, or what the environment variable CC names"
    # Debian's own scheme names a folder that holds no headers.
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    headers = Path(sysconfig.get_path("include", scheme), "Python.h")
    if not headers.exists():
        return f"triton needs Python's headers to launch kernels, and there is no {headers} (package python3-dev)"
    return None


def architecture(device: torch.device) -> str | None:
    """A GPU's architecture as compilers name it, such as `sm_90` or `gfx942`; None for what is no GPU of this process.

    A trace on fake tensors may name a GPU that is not there; a real tensor on one has initialised CUDA.
    """
    if device.type != "cuda" or not torch.cuda.is_initialized():
        return None
    return _architecture(torch.cuda.current_device() if device.index is None else device.index)


@constant
def _architecture(index: int) -> str:
    return _asked(index)


@functools.cache
def _asked(index: int) -> str:
    """The driver is asked once: it takes longer than all else that is decided before a launch."""
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip is not None:
        return properties.gcnArchName.split(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def is_compiled_for(device: torch.device) -> bool:
    """Whether this is a GPU of an architecture that the kernels have been compiled for."""
    return architecture(device) in COMPILED


def on_device(device: torch.device) -> Any:
    """Triton launches on the current device, so make it that of the tensors."""
    return torch.cuda.device(device.index) if device.type == "cuda" else contextlib.nullcontext()  # faster by its index
