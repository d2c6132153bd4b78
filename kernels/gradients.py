"""Whether a derivative is wanted: the kernels here have none, and plain torch runs in their place."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether one of the tensors requires a gradient, or carries a tangent of forward-mode differentiation."""
    recorded, forward = torch.is_grad_enabled(), forward_ad._current_level >= 0
    if not (recorded or forward):  # at each call of a kernel; the rest is slow
        return False
    given = [each for each in tensors if each is not None]
    if recorded and any(each.requires_grad for each in given):
        return True
    if not forward or torch.compiler.is_compiling():
        return False
    # Weights in oneDNN's layout carry none, and can't be asked.
    return any(not each.is_mkldnn and forward_ad.unpack_dual(each).tangent is not None for each in given)
