"""A Triton kernel and its launches. Importing this needs neither Triton nor a driver."""

import functools
import importlib
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

_HIP = torch.version.hip is not None  # there code depends on how much memory a tensor lies in, too
_MOST = 4096  # launches that are remembered
_UNALIGNED = 15  # bits of an address that none may have
_known: dict[Hashable, tuple[Any, list[Any]]] = {}  # code, and the values of its last arguments


class TritonKernel:
    """A kernel of a module of `gem_fast.kernels`, imported with Triton at its first launch.

    At each launch Triton looks at every argument for what its code depends on: types, numbers that are 1 or multiples
    of 16, addresses that are. Of the very types and numbers of a launch before, at addresses that are all multiples of
    16 as those of torch's allocator, that one's code is launched.
    """

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    @functools.cached_property
    def _kernel(self) -> Any:
        return getattr(importlib.import_module(f"gem_fast.kernels.{self._module}"), self._name)

    def __call__(
        self, grid: tuple[int, int, int], tensors: Sequence[Tensor | None], *numbers: float, **constants: Any
    ) -> None:
        """Launch it on the current device and stream.

        Args:
            grid: programs in each dimension.
            tensors: the kernel's first arguments, the very first a tensor.
            numbers: those after them, each of one type in all launches.
            constants: its other arguments and Triton's options, by name.
        """
        first = tensors[0]
        assert first is not None
        addresses = 0
        for tensor in tensors:
            if tensor is not None:
                addresses |= tensor.data_ptr()
        types = [None if tensor is None else tensor.dtype for tensor in tensors]
        key = (self, first.device, *types, *numbers, *constants, *constants.values())
        aligned = not (addresses & _UNALIGNED or _HIP)
        if aligned and (known := _known.get(key)):
            code, rest = known
            code[grid](*tensors, *numbers, *rest)
            return
        code = self._kernel[grid](*tensors, *numbers, **constants)
        if aligned and code is not None:  # the interpreter has none
            if len(_known) >= _MOST:
                _known.clear()
            by_name = self._kernel.arg_names[len(tensors) + len(numbers) :]
            _known[key] = code, [constants[name] for name in by_name]
