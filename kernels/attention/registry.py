"""The backends of self-self attention, what each can't serve, and which is taken when none is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from gem_fast.kernels.choice import BACKENDS, asked_backend
from torch import Tensor

from .cpu import cpu
from .cpu import why_not as cpu_why_not
from .reference import reference
from .sdpa import sdpa
from .triton import pays, triton_attention
from .triton import why_not as triton_why_not


def _serves_all(qkv: Tensor, iterations: int, projections: Sequence[int], normalize: bool) -> None:
    return None


@dataclass(frozen=True)
class Backend:
    """One way to compute the operation.

    Attributes:
        name: what the caller asks for it by.
        run: `(qkv, inverse_temperature, *, iterations, projections, normalize) -> [B, N, H*D]`.
        why_not: `(qkv, iterations, projections, normalize)` to the reason why `run` can't serve them, or None.
    """

    name: str
    run: Callable[..., Tensor]
    why_not: Callable[[Tensor, int, Sequence[int], bool], str | None] = _serves_all


_BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("reference", reference),
        Backend("sdpa", sdpa),
        Backend("cpu", cpu, cpu_why_not),
        Backend("triton", triton_attention, lambda qkv, *_: triton_why_not(qkv)),
    )
}
# The first that serves is taken: `cpu` because `bench_attention` measured it faster in every type, `triton` because its
# compiled loops need half the instructions of a general attention's; it has not been timed.
_AUTOMATIC = ("cpu", "triton", "sdpa")


def backends() -> tuple[str, ...]:
    """Names of the backends, as `self_self_attention(backend=...)` takes them."""
    return BACKENDS


def why_not(
    name: str, qkv: Tensor, iterations: int = 1, projections: Sequence[int] = (0, 1, 2), normalize: bool = True
) -> str | None:
    """Why a backend can't serve these arguments, or None if it can."""
    return _BACKENDS[name].why_not(qkv, iterations, projections, normalize)


def choose_backend(
    qkv: Tensor, iterations: int = 1, projections: Sequence[int] = (0, 1, 2), normalize: bool = True
) -> str:
    """The backend that serves when none is asked for; float64 means that exactness is wanted."""
    if qkv.dtype == torch.float64:
        return "reference"
    names = _AUTOMATIC if pays(qkv, normalize) else [name for name in _AUTOMATIC if name != "triton"]
    return next(name for name in names if why_not(name, qkv, iterations, projections, normalize) is None)


def find_backend(
    asked: str | None, qkv: Tensor, iterations: int, projections: Sequence[int], normalize: bool
) -> Backend:
    """The backend asked for by argument, else by `GEM_FAST_BACKEND`, else the automatic choice.

    Raises:
        ValueError: one asked for does not exist or can't serve; the message says why.
    """
    name = asked_backend(asked)
    if name is None:
        return _BACKENDS[choose_backend(qkv, iterations, projections, normalize)]
    reason = why_not(name, qkv, iterations, projections, normalize)
    if reason:
        raise ValueError(f"the backend {name!r} can't serve: {reason}")
    return _BACKENDS[name]
