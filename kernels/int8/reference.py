"""What int8 layers compute, by torch: the same integers, summed up as floats."""

import torch
import torch.nn.functional as F
from gem_fast.kernels.linear import activate
from torch import Tensor

from .weight import Int8Weight

SMALLEST_STEP = 1e-30  # a token that spans less counts as zeros


def round_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens `[..., I]` rounded to 256 values each, of which one is 0: `steps [..., 1]`, and whole numbers `[..., I]`,
    all float32, whose product they are. The steps of a token that isn't finite are NaN."""
    x = x.to(torch.float32)
    low, high = x.amin(-1, keepdim=True).clamp_max(0), x.amax(-1, keepdim=True).clamp_min(0)
    steps = (high - low) / 255
    inverse = torch.where(steps > SMALLEST_STEP, 1 / steps, 0)
    zeros = (-low * inverse).round()
    whole = ((x * inverse).round() + zeros).clamp(0, 255) - zeros
    steps = torch.where(steps > SMALLEST_STEP, steps, 0).masked_fill(~x.isfinite().all(-1, keepdim=True), torch.nan)
    return steps, whole


def linear_reference(
    x: Tensor, weight: Int8Weight, columns: tuple[int, int], smoothing: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """`int8_linear` by torch; sums are float64, which holds them exactly."""
    first, last = columns
    steps, whole = round_tokens(x if smoothing is None else x.to(torch.float32) * smoothing)
    scale, _, bias = weight.factors[:, first:last].double()
    sums = F.linear(whole.nan_to_num(0).double(), weight.rows()[first:last].double())
    return (sums * (steps.double() * scale) + bias).to(dtype)


def mlp_reference(
    x: Tensor,
    branch: Tensor | None,
    gain: Tensor,
    bias: Tensor,
    eps: float,
    first: Int8Weight,
    second: Int8Weight,
    activation: str,
) -> Tensor:
    """`int8_mlp` by torch."""
    tokens = x if branch is None else x + branch
    inner = F.layer_norm(tokens, tokens.shape[-1:], gain, bias, eps)
    for weight, after in ((first, activation), (second, None)):
        inner = activate(linear_reference(inner, weight, (0, weight.outputs), None, torch.float32), after)
    return tokens + inner
