"""LayerNorm by the native kernel of `native/`: a row stays in the first cache from the sum before it to its norm."""

import ctypes

import torch
from gem_fast.kernels.cpu_library import PATHS, call, choose_path, int64s, pointer, why_missing
from gem_fast.kernels.gradients import wants_gradient
from gem_fast.kernels.operators import is_transformed, register
from torch import Tensor

from .buffers import by_name, contiguous, inputs, outputs
from .normed import Normed

_TYPES = (torch.float32, torch.bfloat16, torch.float16)  # as the library numbers them
_LEAST = 2**16  # channels of an image below which the call costs more than it saves


def why_not(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: object = None,
    branch: Tensor | None = None,
    head_width: object = None,
    aside: tuple[Tensor, Tensor] | None = None,
    front: Tensor | None = None,
) -> str | None:
    """The reason why the kernel can't serve these arguments, or None if it can."""
    if missing := why_missing():
        return missing
    if x.dtype not in _TYPES:
        return f"it computes float32, bfloat16 and float16, and x is {str(x.dtype).removeprefix('torch.')}"
    for each in (x, weight, bias, branch, front, *(aside or ())):
        if each is None:
            continue
        if each.device.type != "cpu":
            return f"it runs on the CPU, and a tensor is on {each.device.type}"
        if each.dtype != x.dtype:
            return f"x is {x.dtype}, but not all that goes with it"
    if wants_gradient(x, weight, bias, branch, front, *(aside or ())):
        return "it has no backward, and a gradient is required"
    return None


def pays(x: Tensor, *_: object) -> bool:
    """Whether it is the one to take where no backend is asked for: by one image, whose bits depend on no other."""
    return not (torch.compiler.is_compiling() or is_transformed()) and x.shape[1] * x.shape[2] >= _LEAST


def cpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    branch: Tensor | None = None,
    head_width: int | None = None,
    aside: tuple[Tensor, Tensor] | None = None,
    front: Tensor | None = None,
    *,
    path: str | None = None,
) -> Normed:
    """`add_layer_norm` where `why_not` is None; `path` is one of `paths()`, None for the fastest."""
    scale = None if head_width is None else head_width**-0.5
    path = choose_path(PATHS[1:], path)
    found = _OPERATOR(x, weight, bias, eps, branch, scale, *(aside or (None, None)), front, path)
    total, y, norms, other = by_name(found, branch is not None, scale is not None)
    return Normed(x if total is None else total, y, None if norms is None else norms.mean(-1), other)


def _layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    branch: Tensor | None,
    norm_scale: float | None,
    aside: Tensor | None,
    aside_branch: Tensor | None,
    front: Tensor | None,
    path: str,
) -> list[Tensor]:
    found = outputs(x, weight, bias, eps, branch, norm_scale, aside, aside_branch, front)
    total, y, norms, other = by_name(found, branch is not None, norm_scale is not None)
    if not y.numel():
        return found
    x, added = inputs(x, branch, y.shape)
    front, gain, offset, aside, aside_branch = map(contiguous, (front, weight, bias, aside, aside_branch))
    call(
        "gem_fast_layer_norm",
        pointer(x),
        pointer(front),
        pointer(added),
        int64s((*x.stride()[:2], *added.stride()[:2])),
        pointer(gain),
        pointer(offset),
        ctypes.c_float(eps),
        pointer(aside),
        pointer(aside_branch),
        pointer(total),
        pointer(y),
        pointer(norms),
        ctypes.c_float(norm_scale or 0.0),
        pointer(other),
        int64s((*y.shape, 0 if front is None else len(front))),
        _TYPES.index(x.dtype),
        PATHS.index(path),
        torch.get_num_threads(),
    )
    return found


_OPERATOR = register(
    "layer_norm_cpu(Tensor x, Tensor weight, Tensor bias, float eps, Tensor? branch, float? norm_scale,"
    " Tensor? aside, Tensor? aside_branch, Tensor? front, str path) -> Tensor[]",
    _layer_norm,
    lambda *arguments: outputs(*arguments[:-1]),
)
