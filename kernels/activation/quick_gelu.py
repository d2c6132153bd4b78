"""The entry to QuickGELU, and its plain form."""

import torch
from gem_fast.kernels.backends import Backend, operation
from gem_fast.kernels.first_use import random_tensors
from torch import Tensor

from . import cpu
from .triton_quick_gelu import pays, triton_quick_gelu, why_not


def quick_gelu(x: Tensor, backend: str | None = None) -> Tensor:
    """`x · sigmoid(1.702 x)`, element by element, of a fresh product: it may be written over x.

    Args:
        x: floating, of any shape; not to be read any more.
        backend: `"cpu"` or `"triton"`, in one pass and in place, or `"sdpa"` for torch's own operations; None is what
            `GEM_FAST_BACKEND` names, else the fastest that serves.

    Raises:
        ValueError: `backend` does not exist, or can't serve; the message says why.
    """
    result: Tensor = OPERATION(backend, x)
    return result


def plain(x: Tensor) -> Tensor:
    """QuickGELU by torch."""
    return x * torch.sigmoid(1.702 * x)


OPERATION = operation(
    "quick_gelu",
    Backend("cpu", cpu.quick_gelu_cpu, cpu.why_not, cpu.pays),
    Backend("triton", triton_quick_gelu, why_not, pays, trials=lambda *where: [random_tensors(*where, (3, 7, 700))]),
    Backend("sdpa", plain),
    example=lambda dtype, device: (torch.empty(1, 785, 3072, dtype=dtype, device=device),),
)
