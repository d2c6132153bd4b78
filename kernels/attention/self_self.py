"""The one entry to self-self attention: checks its arguments and hands them to the backend."""

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import torch
from gem_fast.kernels.backends import Backend, operation
from gem_fast.kernels.first_use import random_tensors
from torch import Tensor

from . import cpu, triton
from .reference import reference
from .sdpa import sdpa

# Of each choice of projections, in any order.
_INDICES = {"".join(choice): tuple(map("qkv".index, choice)) for n in (1, 2, 3) for choice in permutations("qkv", n)}


def self_self_attention(
    qkv: Tensor,
    inverse_temperature: Tensor | float,
    *,
    iterations: int = 1,
    projections: str = "qkv",
    normalize: bool = True,
    backend: str | None = None,
) -> Tensor:
    """Self-self attention of GEM (CVPR 2024), Eq. 3 and 5-7, ensembled over the projections.

    Args:
        qkv: the packed projections `[B, N, 3, H, D]`, any strides, a floating type.
        inverse_temperature: `1/τ`, positive: `[B]` for each image, `[B, N]` for each token, of which an image's is the
            mean, or a number for all.
        iterations: how often a projection attends to itself (Eq. 5) before the values are assigned (Eq. 6).
        projections: which of q, k and v are ensembled (Eq. 7), such as `"qkv"` or `"v"`.
        normalize: L2-normalise the projections. Off, with `1/sqrt(D)` as temperature, `"v"` and no iteration, it is
            the value-value attention of CLIP Surgery.
        backend: `"reference"` (plain equations, N×N in memory), `"sdpa"`, `"cpu"` (the native kernel) or `"triton"`
            (fused kernels for CUDA and ROCm); None is what the environment variable `GEM_FAST_BACKEND` names, else
            the fastest that serves.

    Returns:
        `[B, N, H*D]` in the type of `qkv`, ready for the output projection.

    Raises:
        ValueError: an argument has the wrong shape, type or name, or a backend that was asked for can't serve; the
            message says what would be right.
    """
    check_qkv(qkv)
    if not isinstance(inverse_temperature, Tensor):
        inverse_temperature = of_each_image(inverse_temperature, qkv, "inverse_temperature")
    if inverse_temperature.shape not in (qkv.shape[:1], qkv.shape[:2]):
        raise ValueError(
            f"inverse_temperature must be a number or have the shape [B] = [{qkv.shape[0]}] or [B, N] = "
            f"{list(qkv.shape[:2])}, got {list(inverse_temperature.shape)}"
        )
    if inverse_temperature.device != qkv.device:
        raise ValueError(f"inverse_temperature must be on {qkv.device} as qkv is, got {inverse_temperature.device}")
    indices = indices_of(projections)
    if not isinstance(iterations, int) or iterations < 0:
        raise ValueError(f"iterations must be 0 or more, a whole number, got {iterations!r}")
    result: Tensor = OPERATION(backend, qkv, inverse_temperature, iterations, indices, normalize)
    return result


def _of_images(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A backend that is given each image's inverse temperature, of what may be its tokens'."""

    def of_images(qkv: Tensor, inverse_temperature: Tensor, *options: Any) -> Tensor:
        of_each = inverse_temperature if inverse_temperature.ndim == 1 else inverse_temperature.mean(-1)
        return run(qkv, of_each, *options)

    return of_images


def check_qkv(qkv: Tensor) -> None:
    """Raise ValueError unless these are packed projections."""
    if qkv.ndim != 5 or qkv.shape[2] != 3:
        raise ValueError(f"qkv must have the shape [B, N, 3, H, D], got {list(qkv.shape)}")
    if not qkv.is_floating_point():
        raise ValueError(f"qkv must have a floating type, got {qkv.dtype}")


def of_each_image(number: float, qkv: Tensor, name: str) -> Tensor:
    """A positive number, which the caller calls `name`, as `[B]`, float32 or wider."""
    try:
        positive = number > 0
    except TypeError:
        positive = False
    if not positive:
        raise ValueError(f"{name} must be positive, got {number}")
    wide = torch.promote_types(qkv.dtype, torch.float32)
    return torch.full(qkv.shape[:1], number, dtype=wide, device=qkv.device)


def indices_of(projections: str) -> tuple[int, ...]:
    """Which of q, k and v are named; ValueError unless some are, each once."""
    indices = _INDICES.get(projections)
    if indices is None:
        raise ValueError(f"projections must name some of q, k and v, each once, got {projections!r}")
    return indices


def trials(dtype: torch.dtype, device: torch.device) -> Iterator[tuple[Any, ...]]:
    """In tiles, without an iteration, in one launch, and of rows of any norm."""
    for N, iterations, normalize in ((130, 1, True), (130, 0, True), (50, 1, True), (130, 0, False)):
        (qkv,) = random_tensors(dtype, device, (1, N, 3, 2, 64))
        c = torch.tensor([3.0 if normalize else 0.125], device=device)
        yield qkv, c, iterations, (0, 1, 2), normalize


# `cpu` first because `bench_attention` measured it faster in every type; `triton` because it was the faster on an H100.
OPERATION = operation(
    "self_self_attention",
    Backend("cpu", _of_images(cpu.cpu), cpu.why_not),
    Backend("triton", triton.run, triton.why_not, triton.pays, trials, multiplies=True),
    Backend("sdpa", _of_images(sdpa), pays=lambda qkv, *_: qkv.dtype != torch.float64),  # which asks for exactness
    Backend("reference", _of_images(reference)),
    example=lambda dtype, device: (
        torch.empty(1, 785, 3, 12, 64, dtype=dtype, device=device),
        torch.empty(1, device=device),
        1,
        (0, 1, 2),
        True,
    ),
)
