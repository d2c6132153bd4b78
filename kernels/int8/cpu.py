"""Int8 layers by the native kernel of `native/`: exact sums in int32, on torch's threads."""

import ctypes
from typing import Any

import torch
from gem_fast.kernels.cpu_library import call, int64s, pointer, why_no_vnni
from gem_fast.kernels.gradients import wants_gradient
from gem_fast.kernels.operators import register
from torch import Tensor

from .weight import Int8Weight

ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu")  # as the library numbers them


def why_not(x: Tensor, weight: Int8Weight, *arguments: object) -> str | None:
    """Why the kernel can't serve tokens x and what goes with them, or None."""
    if missing := why_no_vnni():
        return missing
    others = [each for each in arguments if isinstance(each, Tensor)]
    for each in (x, weight.values, weight.factors, *others):
        if each.device.type != "cpu":
            return f"it runs on the CPU, and a tensor is on {each.device.type}"
    if x.dtype not in (torch.float32, torch.bfloat16):
        return f"it takes float32 and bfloat16, and x is {str(x.dtype).removeprefix('torch.')}"
    if wants_gradient(x, *others):
        return "it has no backward, and a gradient is required"
    return None


def linear_cpu(
    x: Tensor, weight: Int8Weight, columns: tuple[int, int], smoothing: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """`int8_linear` where `why_not` is None."""
    result: Tensor = _LINEAR(x, weight.values, weight.factors, smoothing, weight.outputs, *columns, dtype)
    return result


def mlp_cpu(
    x: Tensor,
    branch: Tensor | None,
    gain: Tensor,
    bias: Tensor,
    eps: float,
    first: Int8Weight,
    second: Int8Weight,
    activation: str,
) -> Tensor:
    """`int8_mlp` where `why_not_mlp` is None."""
    weights = (first.values, first.factors, second.values, second.factors)
    result: Tensor = _MLP(x, branch, gain, bias, eps, *weights, first.outputs, activation)
    return result


def why_not_mlp(x: Tensor, branch: Tensor | None, gain: Tensor, bias: Tensor, eps: float, *then: Any) -> str | None:
    """As `why_not`, for `int8_mlp`."""
    first, second, _activation = then
    if x.dtype != torch.float32:
        return f"it takes float32, and x is {str(x.dtype).removeprefix('torch.')}"
    return why_not(x, first, branch, gain, bias, *second)


def _linear(
    x: Tensor,
    values: Tensor,
    factors: Tensor,
    smoothing: Tensor | None,
    outputs: int,
    first: int,
    last: int,
    dtype: torch.dtype,
) -> Tensor:
    smoothing = None if smoothing is None else smoothing.contiguous()
    x, out = x.contiguous(), x.new_empty(*x.shape[:-1], last - first, dtype=dtype)
    if out.numel():
        inputs = x.shape[-1]
        call(
            "gem_fast_int8_linear",
            pointer(x),
            x.dtype == torch.bfloat16,
            None if smoothing is None else pointer(smoothing),
            pointer(values),
            pointer(factors),
            int64s((x.numel() // inputs, inputs, outputs, first, last)),
            pointer(out),
            dtype == torch.bfloat16,
            torch.get_num_threads(),
        )
    return out


def _mlp(
    x: Tensor,
    branch: Tensor | None,
    gain: Tensor,
    bias: Tensor,
    eps: float,
    in_values: Tensor,
    in_factors: Tensor,
    out_values: Tensor,
    out_factors: Tensor,
    inner: int,
    activation: str,
) -> Tensor:
    x, branch = x.contiguous(), None if branch is None else branch.to(x.dtype).contiguous()
    gain, bias = (each.to(x.dtype).contiguous() for each in (gain, bias))
    out, width = torch.empty_like(x), x.shape[-1]
    if out.numel():
        call(
            "gem_fast_int8_mlp",
            pointer(x),
            None if branch is None else pointer(branch),
            *(pointer(gain), pointer(bias), ctypes.c_float(eps)),
            *(pointer(in_values), pointer(in_factors), pointer(out_values), pointer(out_factors)),
            int64s((x.numel() // width, width, inner)),
            ACTIVATIONS.index(activation),
            pointer(out),
            torch.get_num_threads(),
        )
    return out


_LINEAR = register(
    "int8_linear_cpu(Tensor x, Tensor values, Tensor factors, Tensor? smoothing, int outputs, int first, "
    "int last, ScalarType dtype) -> Tensor",
    _linear,
    lambda x, values, factors, smoothing, outputs, first, last, dtype: x.new_empty(
        *x.shape[:-1], last - first, dtype=dtype
    ),
)
_MLP = register(
    "int8_mlp_cpu(Tensor x, Tensor? branch, Tensor gain, Tensor bias, float eps, Tensor in_values, Tensor in_factors, "
    "Tensor out_values, Tensor out_factors, int inner, str activation) -> Tensor",
    _mlp,
    lambda x, *_: torch.empty_like(x),
)
