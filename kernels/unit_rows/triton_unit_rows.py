"""The launcher of rows of norm 1; Triton is imported on first use."""

import torch
from gem_fast.kernels.operators import register
from gem_fast.kernels.triton_host import is_compiled_for, on_device, why_no_triton
from gem_fast.kernels.triton_kernel import Launch, TritonKernel, remembered
from torch import Tensor

WIDEST = 8192  # channels that one program holds in registers
_KERNEL = TritonKernel("unit_rows.kernel", "unit_rows_kernel")


def why_not(x: Tensor) -> str | None:
    """The reason why `triton_unit_rows` can't serve x, or None if it can."""
    if not x.is_contiguous() or not 0 < x.shape[-1] <= WIDEST:
        return f"x must be contiguous, with rows of at most {WIDEST} channels"
    return why_no_triton(x, "x")


def pays(x: Tensor) -> bool:
    """Whether it is the one to take where no backend is asked for."""
    return is_compiled_for(x.device)


def triton_unit_rows(x: Tensor) -> Tensor:
    """x / |x| over the last dimension, where `why_not` is None; computed and returned in float32."""
    found: Tensor = _OPERATOR(x)
    return found


def _unit_rows(x: Tensor) -> Tensor:
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    if x.numel():
        with on_device(x.device):
            _launch(x.device, x.dtype, x.numel() // x.shape[-1], x.shape[-1])(x, out)
    return out


@remembered
def _launch(device: torch.device, dtype: torch.dtype, rows: int, C: int) -> Launch:
    width = 1 << (C - 1).bit_length()
    return Launch(_KERNEL, (rows, 1, 1), C=C, WIDTH=width, num_warps=min(8, max(1, width // 256)))


def _fake(x: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.float32)


_OPERATOR = register("unit_rows_triton(Tensor x) -> Tensor", _unit_rows, _fake)
