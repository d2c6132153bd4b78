"""The entry to SiLU as the gate of another product, as in the MLPs of EVA-02, and its plain form."""

import torch
import torch.nn.functional as F
from gem_fast.kernels.backends import Backend, operation
from torch import Tensor

from . import cpu


def silu_gate(gate: Tensor, x: Tensor, backend: str | None = None) -> Tensor:
    """`gate · sigmoid(gate) · x`, element by element, of fresh products: it may be written over `gate`.

    Args:
        gate, x: floating, of one shape and type; `gate` is not to be read any more.
        backend: `"cpu"`, in one pass and in place, or `"sdpa"` for torch's own operations; None is what
            `GEM_FAST_BACKEND` names, else the fastest that serves.

    Raises:
        ValueError: `backend` does not exist, or can't serve; the message says why.
    """
    result: Tensor = OPERATION(backend, gate, x)
    return result


def plain(gate: Tensor, x: Tensor) -> Tensor:
    """The gate by torch."""
    return F.silu(gate) * x


def _example(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    one = torch.empty(1, 785, 2048, dtype=dtype, device=device)
    return one, one


OPERATION = operation(
    "silu_gate", Backend("cpu", cpu.silu_gate_cpu, cpu.why_not, cpu.pays), Backend("sdpa", plain), example=_example
)
