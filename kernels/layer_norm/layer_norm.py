"""The entries to LayerNorm with the sum before it and the adaptive temperature (GEM, Eq. 4), and their plain form."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from gem_fast.kernels.backends import Backend, operation
from gem_fast.kernels.first_use import random_tensors
from torch import Tensor

from . import cpu as native
from .normed import Normed
from .triton_layer_norm import fused_layer_norm, pays, why_not


def add_layer_norm(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    head_width: int | None = None,
    aside: tuple[Tensor, Tensor] | None = None,
    front: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Normed:
    """The sum of x and branch, its LayerNorm, and what else is asked for: natively one kernel that reads each once.

    Args:
        x: tokens `[B, N, C]`, floating; with `front` those after it.
        branch: what is added to them, `[B, N, C]` or for all images `[N, C]`; None for nothing.
        weight, bias: of the LayerNorm, `[C]`.
        eps: of the LayerNorm.
        head_width: D, channels of a head, for the adaptive temperature; None for none.
        aside: two tensors `[B, N, C]` whose sum is wanted too.
        front: tokens before those of x, the same for all images, `[n, C]`; None for none.
        backend: `"cpu"`, `"triton"`, or `"sdpa"` for torch's own operations; None is what `GEM_FAST_BACKEND` names,
            else on a CPU the native kernel where an image is worth the call, and Triton on a GPU where it serves and
            there is more to do than a LayerNorm.

    Raises:
        ValueError: x is not `[B, N, C]`, weight and bias are not `[C]`, the shapes of what is added don't fit, or
            `backend` does not exist or can't serve.
    """
    _check(x, weight, bias)
    B, N, C = x.shape
    if front is not None:
        if branch is None or front.ndim != 2 or front.shape[1] != C:
            raise ValueError(f"front must be [n, {C}] and go with a branch, got {list(front.shape)}")
        N += front.shape[0]
    shape = (B, N, C)
    # By rank, since torch.export would else compare the batch with the tokens, and forbid one that equals them.
    if branch is not None and (branch.ndim not in (2, 3) or branch.shape != shape[3 - branch.ndim :]):
        raise ValueError(f"branch must be {list(shape)} or {list(shape[1:])}, got {list(branch.shape)}")
    if aside is not None and any(each.shape != shape for each in aside):
        raise ValueError(f"aside must be {list(shape)} twice, got {[list(each.shape) for each in aside]}")
    found: Normed = OPERATION(backend, x, weight, bias, eps, branch, head_width, aside, front)
    return found


def layer_norm_and_temperature(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, head_width: int, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """`y = LayerNorm(x)` and `c = mean_n |y_n| / sqrt(head_width)`, the inverse temperature of each image (Eq. 4).

    Arguments and errors as in `add_layer_norm`; returns y `[B, N, C]` in the type of x, and c `[B]`, float32 or wider.
    """
    found = add_layer_norm(x, None, weight, bias, eps, head_width, backend=backend)
    assert found.scale is not None
    return found.y, found.scale if found.scale.ndim == 1 else found.scale.mean(-1)


def _check(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    if x.ndim != 3 or not x.is_floating_point():
        raise ValueError(f"x must be floating [B, N, C], got {x.dtype} {list(x.shape)}")
    channels = x.shape[-1:]
    if weight.shape != channels or bias.shape != channels:
        raise ValueError(f"weight and bias must be [{x.shape[-1]}], got {list(weight.shape)} and {list(bias.shape)}")


def reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """LayerNorm of x `[B, N, C]` and the norm of each of its tokens `[B, N]`, float32 or wider."""
    y = F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return y, torch.linalg.vector_norm(y, dim=-1, dtype=torch.promote_types(y.dtype, torch.float32))


def _plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    branch: Tensor | None = None,
    head_width: int | None = None,
    aside: tuple[Tensor, Tensor] | None = None,
    front: Tensor | None = None,
) -> Normed:
    tokens = x if front is None else torch.cat([front.expand(x.shape[0], -1, -1), x], dim=1)
    tokens = tokens if branch is None else tokens + branch
    total = None if aside is None else aside[0] + aside[1]
    if head_width is None:
        return Normed(tokens, F.layer_norm(tokens, tokens.shape[-1:], weight, bias, eps), None, total)
    y, norms = reference(tokens, weight, bias, eps)
    return Normed(tokens, y, norms.mean(-1) * head_width**-0.5, total)


def trials(dtype: torch.dtype, device: torch.device) -> Iterator[tuple[Any, ...]]:
    """Alone, with both sums, and with tokens in front."""
    x, more, weight, bias, front = random_tensors(dtype, device, (2, 9, 384), (2, 9, 384), (384,), (384,), (1, 384))
    yield x, weight, bias, 1e-5, None, 64
    yield x, weight, bias, 1e-5, more, 64, (more, x)
    yield x[:, 1:], weight, bias, 1e-5, more, None, None, front


def _outputs(found: Normed) -> list[Tensor]:
    return [each.mean(-1) if each is found.scale and each.ndim == 2 else each for each in found if each is not None]


OPERATION = operation(
    "layer_norm_and_temperature",
    Backend("cpu", native.cpu, native.why_not, native.pays),
    Backend("triton", fused_layer_norm, why_not, pays, trials),
    Backend("sdpa", _plain),
    outputs=_outputs,
    example=lambda dtype, device: (
        torch.empty(1, 785, 768, dtype=dtype, device=device),
        torch.empty(768, dtype=dtype, device=device),
        torch.empty(768, dtype=dtype, device=device),
        1e-5,
        None,
        64,
    ),
)
