"""Self-self attention on Triton: what it serves, and in which steps.

The kernels are imported on first use, so that importing this package needs neither Triton nor a driver.
"""

from collections.abc import Mapping, Sequence

import torch
from gem_fast.kernels.operators import register
from gem_fast.kernels.triton_host import COMPILED, architecture, on_device, why_no_triton
from torch import Tensor

from .call import Call
from .tiles import Device, Tile, precision


def why_not(qkv: Tensor, inverse_temperature: Tensor | None = None, *_: object) -> str | None:
    """The reason why `triton_attention` can't serve these arguments, or None if it can."""
    reason = why_no_triton(qkv, "qkv", inverse_temperature)
    if reason:
        return reason
    if qkv.shape[-1] > 128:
        return f"heads of {qkv.shape[-1]} channels are wider than 128"
    if qkv.stride(-1) != 1:
        return "the last dimension of qkv is not contiguous"
    if qkv.shape[0] > 65535 or qkv.shape[3] * 3 > 65535:
        return "more than 65,535 images, or heads × projections, do not fit a launch grid"
    if inverse_temperature is not None and inverse_temperature.device != qkv.device:
        return f"qkv is on {qkv.device}, but inverse_temperature is on {inverse_temperature.device}"
    arch = architecture(qkv.device)
    if arch and arch.startswith("sm_") and int(arch[3:]) < 80:
        return f"Triton multiplies without tensor cores on {arch}"
    return None


def pays(
    qkv: Tensor, inverse_temperature: object, iterations: int, projections: Sequence[int], normalize: bool
) -> bool:
    """Whether these kernels are the ones to take, if they can serve and no backend is asked for.

    They are on a GPU that they have been compiled for, where products run on tensor cores: exact float32 products
    don't, and TF32 pays for rows of norm 1 alone.
    """
    arch = architecture(qkv.device)
    if arch not in COMPILED:
        return False
    return qkv.dtype != torch.float32 or (normalize and precision(Device(str(arch), 1), qkv.dtype) == "tf32")


def triton_attention(
    qkv: Tensor, inverse_temperature: Tensor, iterations: int, projections: tuple[int, ...], normalize: bool
) -> Tensor:
    """Eq. 3 and 5-7 of GEM with fused kernels that read `qkv` in place.

    Shapes: qkv [B, N, 3, H, D] of any strides with a contiguous last dimension, inverse_temperature [B], or [B, N] of
    the tokens, whose mean it is, result [B, N, H*D]. Norms, logits, sums and the ensemble are float32. float32 products
    are exact unless `torch.set_float32_matmul_precision` allows TF32; then their operands are rounded to nearest, the
    values, and rows that are not normalised, in a copy.

    Raises:
        ValueError: `why_not` gives a reason, or a table of measured tiles can't be used.
    """
    reason = why_not(qkv, inverse_temperature)
    if reason:
        raise ValueError(f"Triton can't serve this: {reason}")
    return run(qkv, inverse_temperature, iterations, projections, normalize)


def run(
    qkv: Tensor, inverse_temperature: Tensor, iterations: int, projections: Sequence[int], normalize: bool
) -> Tensor:
    """`triton_attention` of arguments that were checked."""
    found: Tensor = _OPERATOR(qkv, inverse_temperature, iterations, projections, normalize)
    return found


def _self_self(
    qkv: Tensor, inverse_temperature: Tensor, iterations: int, projections: Sequence[int], normalize: bool
) -> Tensor:
    return launch_attention(qkv, inverse_temperature, iterations, projections, normalize, {})


def launch_attention(
    qkv: Tensor,
    inverse_temperature: Tensor,
    iterations: int,
    projections: Sequence[int],
    normalize: bool,
    tiles: Mapping[str, Tile | None],
) -> Tensor:
    """`triton_attention` without its checks; `tiles` go before the tables', by operation, None to do without it."""
    B, N, _, H, D = qkv.shape
    out = torch.empty(B, N, H * D, dtype=qkv.dtype, device=qkv.device)
    if out.numel() == 0:
        return out
    call = Call(qkv, inverse_temperature, sorted(projections), tiles)
    with on_device(qkv.device):
        if not normalize:
            call.attend(iterations, out)
        elif call.is_resident():
            call.resident(iterations, out)
        elif call.in_place(iterations):
            call.assign(None, out)
        else:
            call.assign(call.refined(iterations), out)
    return out


def _fake(
    qkv: Tensor, inverse_temperature: Tensor, iterations: int, projections: Sequence[int], normalize: bool
) -> Tensor:
    B, N, _, H, D = qkv.shape
    return qkv.new_empty(B, N, H * D)


_OPERATOR = register(
    "self_self_attention_triton(Tensor qkv, Tensor inverse_temperature, int iterations, int[] projections,"
    " bool normalize) -> Tensor",
    _self_self,
    _fake,
)
