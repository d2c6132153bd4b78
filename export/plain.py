"""The image encoder in a type by PyTorch alone: the loss of the type itself, by which an export in it is judged."""

import copy

import torch
import torch.nn.functional as F
from gem_fast.kernels.linear import activate
from torch import Tensor, nn

from gem_fast.dtypes import dtype_name
from gem_fast.towers.layer import Linear
from gem_fast.towers.vit import GemVisionTransformer


class Int8Linear(Linear):
    """A linear layer with int8 weights, a scale an output, and uint8 activations, a scale and a zero for all of them.

    Computed in float32 on rounded values, which gives what integers would.
    """

    @classmethod
    def of(cls, linear: Linear) -> "Int8Linear":
        rounded = cls(linear.in_features, linear.out_features, linear.bias is not None, linear.activation)
        scale = (linear.weight.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        weight = torch.fake_quantize_per_channel_affine(
            linear.weight, scale, torch.zeros_like(scale, dtype=torch.int32), 0, -127, 127
        )
        rounded.weight, rounded.bias = nn.Parameter(weight, requires_grad=False), linear.bias
        return rounded

    def forward(self, x: Tensor, backend: str | None = None) -> Tensor:
        low, high = x.amin().clamp_max(0), x.amax().clamp_min(0)
        scale = ((high - low) / 255).clamp_min(torch.finfo(torch.float32).tiny)
        zero = (-low / scale).round().clamp(0, 255).to(torch.int32)
        rounded = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
        return activate(F.linear(rounded, self.weight, self.bias), self.activation, backend)


def plain_torch(vision: GemVisionTransformer, kind: str) -> GemVisionTransformer:
    """A copy of the model, which is in float32, that computes in float32, bfloat16, float16 or int8."""
    plain = copy.deepcopy(vision)
    plain.backend = "sdpa"
    if kind != "int8":
        return plain.to(getattr(torch, dtype_name(kind)))
    for block in plain.blocks:
        for name, layer in list(block.named_children()):
            if isinstance(layer, Linear):
                setattr(block, name, Int8Linear.of(layer))
    return plain
