"""Triton kernels and their launches. Importing this needs neither Triton nor a driver."""

import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

OPTIONS = {"enable_fp_fusion": True}  # of every kernel: what was measured, and no longer Triton's default from 3.10 on
_UNALIGNED = 15  # bits of an address that none may have
_HIP = torch.version.hip is not None  # there code depends on how much memory a tensor lies in, too
_REMEMBERED: list[Any] = []

Made = TypeVar("Made")


class TritonKernel:
    """A kernel of a module of `gem_fast.kernels`, imported with Triton at its first launch."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    @functools.cached_property
    def function(self) -> Any:
        """What Triton made of it."""
        return getattr(importlib.import_module(f"gem_fast.kernels.{self._module}"), self._name)


class Launch:
    """A launch of a kernel on one device in which nothing changes from time to time but where its tensors lie.

    At each launch Triton looks at every argument for what its code depends on: types, numbers that are 1 or multiples
    of 16, addresses that are. Here types and numbers stay, so where all addresses are multiples of 16, as those of
    torch's allocator, the code of the first such launch is launched again.

    Args:
        grid: programs in each dimension.
        numbers: the kernel's arguments after its tensors.
        constants: its other arguments and Triton's options, by name.
    """

    def __init__(self, kernel: TritonKernel, grid: tuple[int, int, int], *numbers: float, **constants: Any) -> None:
        self._kernel, self._grid, self._numbers, self._constants = kernel, grid, numbers, constants | OPTIONS
        self._code: Any = None
        self._rest: tuple[Any, ...] = ()

    def __call__(self, *tensors: Tensor | None) -> None:
        """Launch it on the current device and stream; the tensors are the kernel's first arguments."""
        addresses = 0
        for tensor in tensors:
            if tensor is not None:
                addresses |= tensor.data_ptr()
        aligned = not (addresses & _UNALIGNED or _HIP)
        if aligned and self._code is not None:
            self._code[self._grid](*tensors, *self._rest)
            return
        function = self._kernel.function
        code = function[self._grid](*tensors, *self._numbers, **self._constants)
        if aligned and code is not None:  # the interpreter has none
            named = function.arg_names[len(tensors) + len(self._numbers) :]
            self._rest = (*self._numbers, *(self._constants[name] for name in named))
            self._code = code


def remembered(make: Callable[..., Made]) -> Callable[..., Made]:
    """A function that makes launches, or whatever holds them, and makes nothing twice of the same arguments.

    They have to tell all that a launch is made of, the tensors' device and types too.
    """
    cached = functools.lru_cache(maxsize=4096)(make)
    _REMEMBERED.append(cached)
    return cached


def forget() -> None:
    """Let all launches be made anew."""
    for cached in _REMEMBERED:
        cached.cache_clear()
