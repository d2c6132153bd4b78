"""Whether a derivative is wanted: the kernels here have none, and plain torch runs in their place."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether one of the tensors requires a gradient, or carries a tangent of forward-mode differentiation."""
    given = [each for each in tensors if each is not None]
    if torch.is_grad_enabled() and any(each.requires_grad for each in given):
        return True
    return not torch.compiler.is_compiling() and any(forward_ad.unpack_dual(each).tangent is not None for each in given)
