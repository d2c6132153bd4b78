"""The entries to int8 layers: they check their arguments and hand them to a backend."""

import torch
from gem_fast.kernels.backends import Backend, operation
from torch import Tensor

from .cpu import ACTIVATIONS, linear_cpu, mlp_cpu, why_not, why_not_mlp
from .reference import linear_reference, mlp_reference
from .weight import PANEL, Int8Weight, quantize_weight


def int8_linear(
    x: Tensor,
    weight: Int8Weight,
    columns: tuple[int, int] | None = None,
    smoothing: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    *,
    backend: str | None = None,
) -> Tensor:
    """`x @ weight.T + bias` with both factors in 8 bits, whose sums are exact integers.

    Each token is rounded by a scale and a zero of its own, from its least to its largest value, so that its result
    depends on nothing else. One that holds NaN or infinity gives NaN.

    Args:
        x: tokens `[..., I]`, floating.
        weight: of `quantize_weight`.
        columns: the first of the outputs that are wanted, a multiple of 32, and the one after the last; None for all.
        smoothing: `[I]` float32, what x is multiplied with before it is rounded; the weight holds the inverse.
        dtype: of the result, float32 or bfloat16.
        backend: `"cpu"`, the native kernel for AVX-512 VNNI, or `"sdpa"`, the same numbers by torch; None is what
            `GEM_FAST_BACKEND` names, else the native kernel where it serves.

    Returns:
        `[..., last - first]`.

    Raises:
        ValueError: the shapes don't fit, or `backend` does not exist or can't serve.
    """
    first, last = columns or (0, weight.outputs)
    if x.ndim == 0 or x.shape[-1] != weight.inputs:
        raise ValueError(f"x must be [..., {weight.inputs}], got {list(x.shape)}")
    if first % PANEL or not 0 <= first <= last <= weight.outputs:
        raise ValueError(f"columns must be a multiple of {PANEL} and an end up to {weight.outputs}, got {columns}")
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype must be float32 or bfloat16, got {dtype}")
    if smoothing is not None and (smoothing.shape != x.shape[-1:] or smoothing.dtype != torch.float32):
        raise ValueError(f"smoothing must be float32 [{weight.inputs}], got {smoothing.dtype} {list(smoothing.shape)}")
    result: Tensor = LINEAR(backend, x, weight, (first, last), smoothing, dtype)
    return result


def int8_mlp(
    x: Tensor,
    branch: Tensor | None,
    gain: Tensor,
    bias: Tensor,
    eps: float,
    first: Int8Weight,
    second: Int8Weight,
    activation: str,
    *,
    backend: str | None = None,
) -> Tensor:
    """The second half of a transformer block, `t + second(activation(first(LayerNorm(t))))` of `t = x + branch`.

    Args:
        x, branch: tokens `[..., C]`, and what is added to them, or None; float32.
        gain, bias, eps: of the LayerNorm.
        first, second: weights of `quantize_weight`, `[M, C]` and `[C, M]`, used as in `int8_linear`.
        activation: `gelu`, `gelu_tanh` or `quick_gelu`.
        backend: as in `int8_linear`.

    Returns:
        `[..., C]` float32.

    Raises:
        ValueError: the shapes don't fit, there is no such activation, or `backend` does not exist or can't serve.
    """
    width = first.inputs
    fits = x.ndim and x.shape[-1] == second.outputs == width and gain.shape == bias.shape == (width,)
    if not fits or second.inputs != first.outputs or (branch is not None and branch.shape != x.shape):
        raise ValueError(f"x, branch, the LayerNorm and both weights must be of one width, {width}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    result: Tensor = MLP(backend, x, branch, gain, bias, eps, first, second, activation)
    return result


def _example(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Int8Weight]:
    """Tokens and a weight of their width."""
    weight = quantize_weight(torch.zeros(64, 64))
    return torch.empty(1, 785, 64, dtype=dtype, device=device), weight


def _mlp_example(dtype: torch.dtype, device: torch.device) -> tuple[object, ...]:
    tokens, weight = _example(dtype, device)
    return tokens, None, torch.ones(64), torch.zeros(64), 1e-5, weight, weight, "gelu"


LINEAR = operation(
    "int8_linear",
    Backend("cpu", linear_cpu, why_not),
    Backend("sdpa", linear_reference),
    example=lambda dtype, device: (*_example(dtype, device), (0, 64), None, torch.float32),
)
MLP = operation(
    "int8_mlp",
    Backend("cpu", mlp_cpu, why_not_mlp),
    Backend("sdpa", mlp_reference),
    example=_mlp_example,
)
