"""Activations by the native kernel of `native/`, in one pass and in place.

Torch's own take several passes, and an element's bits depend on where it lies: those that fill no vector, at the ends
of what each thread does, are computed in another way.
"""

import ctypes

import torch
from gem_fast.kernels.cpu_library import PATHS, call, choose_path, pointer, why_missing
from gem_fast.kernels.gradients import wants_gradient
from gem_fast.kernels.operators import is_transformed, register
from torch import Tensor

_TYPES = (torch.float32, torch.bfloat16, torch.float16)  # as the library numbers them
_QUICK_GELU, _SILU = 2, 3  # likewise


def why_not(x: Tensor, factor: Tensor | None = None) -> str | None:
    """The reason why the kernel can't serve x, and what it is multiplied with; or None if it can."""
    if missing := why_missing():
        return missing
    for each in (x, x if factor is None else factor):
        if each.device.type != "cpu":
            return f"it runs on the CPU, and a tensor is on {each.device.type}"
        if each.dtype not in _TYPES:
            return f"it computes float32, bfloat16 and float16, and x is {str(each.dtype).removeprefix('torch.')}"
        if not each.is_contiguous() or each.shape != x.shape or each.dtype != x.dtype:
            return "it takes contiguous tensors of one shape and type"
    if wants_gradient(x, factor):
        return "it has no backward, and a gradient is required"
    return None


def pays(*_: Tensor) -> bool:
    """Whether it is the one to take where no backend is asked for: a compiler fuses torch's own with what is around,
    and a transform takes nothing in place."""
    return not (torch.compiler.is_compiling() or is_transformed())


def quick_gelu_cpu(x: Tensor, *, path: str | None = None) -> Tensor:
    """`quick_gelu` written over x, where `why_not` is None; `path` is one of `paths()`, None for the fastest."""
    _OPERATOR(x, None, _QUICK_GELU, choose_path(PATHS[1:], path))
    return x


def silu_gate_cpu(gate: Tensor, x: Tensor, *, path: str | None = None) -> Tensor:
    """`silu_gate` written over `gate`, where `why_not` is None; `path` as in `quick_gelu_cpu`."""
    _OPERATOR(gate, x, _SILU, choose_path(PATHS[1:], path))
    return gate


def _activate(x: Tensor, factor: Tensor | None, activation: int, path: str) -> None:
    if n := x.numel():
        count = ctypes.c_int64(n)
        numbers = (activation, _TYPES.index(x.dtype), PATHS.index(path), torch.get_num_threads())
        call("gem_fast_activate", pointer(x), pointer(factor), count, *numbers)


_OPERATOR = register(
    "activation_cpu(Tensor(a!) x, Tensor? factor, int activation, str path) -> ()", _activate, lambda *arguments: None
)
