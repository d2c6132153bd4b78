"""The entry to rows of norm 1, and its plain form."""

import torch
import torch.nn.functional as F
from gem_fast.kernels.backends import Backend, operation
from gem_fast.kernels.first_use import random_tensors
from torch import Tensor

from .triton_unit_rows import pays, triton_unit_rows, why_not


def unit_rows(x: Tensor, backend: str | None = None) -> Tensor:
    """x / |x| over the last dimension, float32 or wider; rows of zero stay zero.

    Args:
        x: `[..., C]`, floating.
        backend: `"triton"`, in one launch, or `"sdpa"` for torch's own operations; None is what `GEM_FAST_BACKEND`
            names, else Triton on a GPU where it serves.

    Raises:
        ValueError: `backend` does not exist, or can't serve; the message says why.
    """
    result: Tensor = OPERATION(backend, x)
    return result


def plain(x: Tensor) -> Tensor:
    """`unit_rows` by torch."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


OPERATION = operation(
    "unit_rows",
    Backend("triton", triton_unit_rows, why_not, pays, trials=lambda *where: [random_tensors(*where, (2, 3, 520))]),
    Backend("sdpa", plain),
    example=lambda dtype, device: (torch.empty(1, 785, 512, dtype=dtype, device=device),),
)
