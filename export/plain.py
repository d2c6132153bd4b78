"""The image encoder in a type by PyTorch alone: the loss of the type itself, by which an export in it is judged."""

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from gem_fast.kernels.linear import activate
from torch import Tensor, nn

from gem_fast.dtypes import dtype_name
from gem_fast.errors import ExportError
from gem_fast.runtime.facts import QUANTIZED
from gem_fast.towers.int8 import in_int8
from gem_fast.towers.layer import Linear
from gem_fast.towers.vit import GemVisionTransformer


class Int8Linear(Linear):
    """A linear layer with int8 weights, a scale an output, and uint8 activations, a scale and a zero for all of them.

    Computed in float32 on rounded values, which gives what integers would.

    Attributes:
        ends: the range of activations; None for what a batch has.
    """

    ends: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, linear: Linear, ends: tuple[float, float] | None = None) -> "Int8Linear":
        rounded = cls(linear.in_features, linear.out_features, linear.bias is not None, linear.activation)
        rounded.ends = ends and (torch.tensor(ends[0]), torch.tensor(ends[1]))
        scale = weight_scale(linear.weight)
        weight = torch.fake_quantize_per_channel_affine(
            linear.weight, scale, torch.zeros_like(scale, dtype=torch.int32), 0, -127, 127
        )
        rounded.weight, rounded.bias = nn.Parameter(weight, requires_grad=False), linear.bias
        return rounded

    def forward(self, x: Tensor, backend: str | None = None) -> Tensor:
        scale, zero = affine(*(self.ends or (x.amin(), x.amax())))
        rounded = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
        return activate(F.linear(rounded, self.weight, self.bias), self.activation, backend)


def weight_scale(weight: Tensor) -> Tensor:
    """The scale of each output, `[out]`, of a weight `[out, in]` in int8."""
    return (weight.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)


def affine(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero of uint8 for a range, which is widened to hold 0."""
    low, high = low.clamp_max(0), high.clamp_min(0)
    scale = ((high - low) / 255).clamp_min(torch.finfo(torch.float32).tiny)
    return scale, (-low / scale).round().clamp(0, 255).to(torch.int32)


def require_float(vision: GemVisionTransformer) -> None:
    """ExportError if the model was loaded in int8, whose weights are rounded for this CPU's kernel."""
    if in_int8(vision):
        raise ExportError("load the model in float32 on the CPU; int8 is the export's option quantize, or calibrate")


def plain_torch(
    vision: GemVisionTransformer, kind: str, ranges: Mapping[str, tuple[float, float]] | None = None
) -> GemVisionTransformer:
    """A copy of the model, which is in float32, that computes in float32, bfloat16, float16 or int8.

    `ranges` are those of layers in static int8, by their names.
    """
    require_float(vision)
    plain = copy.deepcopy(vision)
    plain.backend = "sdpa"
    if kind not in QUANTIZED:
        return plain.to(getattr(torch, dtype_name(kind)))
    for index, block in enumerate(plain.blocks):
        for name, layer in list(block.named_children()):
            if isinstance(layer, Linear):
                setattr(block, name, Int8Linear.of(layer, (ranges or {}).get(f"blocks.{index}.{name}")))
    return plain
