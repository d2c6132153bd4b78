"""The launcher of QuickGELU in place; Triton is imported on first use."""

import torch
from gem_fast.kernels.operators import register
from gem_fast.kernels.triton_host import is_compiled_for, on_device, why_no_triton
from gem_fast.kernels.triton_kernel import Launch, TritonKernel, remembered
from torch import Tensor

BLOCK = 2048  # elements of a program: sixteen a thread
_KERNEL = TritonKernel("activation.kernel", "quick_gelu_kernel")


def why_not(x: Tensor) -> str | None:
    """The reason why `triton_quick_gelu` can't serve x, or None if it can."""
    if not x.is_contiguous():
        return "x must be contiguous"
    return why_no_triton(x, "x")


def pays(x: Tensor) -> bool:
    """Whether it is the one to take where no backend is asked for."""
    return is_compiled_for(x.device)


def triton_quick_gelu(x: Tensor) -> Tensor:
    """`x · sigmoid(1.702 x)` written over x, which it returns, where `why_not` is None; computed in float32."""
    _OPERATOR(x)
    return x


def _quick_gelu(x: Tensor) -> None:
    if n := x.numel():
        with on_device(x.device):
            _launch(x.device, x.dtype, n)(x)


@remembered
def _launch(device: torch.device, dtype: torch.dtype, n: int) -> Launch:
    return Launch(_KERNEL, (-(-n // BLOCK), 1, 1), n, BLOCK=BLOCK, num_warps=4)


_OPERATOR = register("quick_gelu_triton(Tensor(a!) x) -> ()", _quick_gelu, lambda x: None)
