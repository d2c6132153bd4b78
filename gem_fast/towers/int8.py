"""The blocks of a vision transformer with linear layers in int8: weights rounded once, tokens as they come.

Tokens, LayerNorm and sums stay float32, and so do the embedding of patches and the head.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gem_fast.kernels import int8_linear, int8_mlp, silu_gate
from gem_fast.kernels.cpu_library import faster_dtype
from gem_fast.kernels.int8 import PANEL, Int8Weight, quantize_weight

from ..errors import ModelError
from .block import Block, Sum, normed
from .vit import GemVisionTransformer

_USUAL_LARGEST = 3.0  # of a normalised value, about


class Int8Linear(nn.Module):
    """A linear layer in int8, of tokens in float32 or bfloat16.

    Args:
        linear: the layer in float32.
        smoothing: what its inputs are multiplied with before they are rounded, `[I]`; its weights take the inverse.
        smoothed: whether its inputs come multiplied already.
    """

    values: Tensor
    factors: Tensor
    smoothing: Tensor | None

    def __init__(self, linear: nn.Linear, smoothing: Tensor | None = None, smoothed: bool = False) -> None:
        super().__init__()
        weight = linear.weight if smoothing is None else linear.weight / smoothing
        values, factors, self.inputs, self.outputs = quantize_weight(weight, linear.bias)
        self.register_buffer("values", values)
        self.register_buffer("factors", factors)
        self.register_buffer("smoothing", None if smoothed else smoothing)

    @property
    def weight(self) -> Int8Weight:
        return Int8Weight(self.values, self.factors, self.inputs, self.outputs)

    def forward(
        self,
        x: Tensor,
        columns: tuple[int, int] | None = None,
        dtype: torch.dtype = torch.float32,
        backend: str | None = None,
    ) -> Tensor:
        return int8_linear(x, self.weight, columns, self.smoothing, dtype, backend=backend)


class Int8Block(Block):
    """A block in int8, made of one in float32; its LayerNorm before the MLP takes the smoothing in.

    Attributes:
        attends_in: type of the projections, in which the attention computes.
    """

    qkv: Int8Linear  # type: ignore[assignment]
    out: Int8Linear  # type: ignore[assignment]
    mlp_in: Int8Linear  # type: ignore[assignment]
    mlp_gate: Int8Linear  # type: ignore[assignment]
    mlp_out: Int8Linear  # type: ignore[assignment]

    def __init__(self, block: Block, backend: str | None) -> None:
        nn.Module.__init__(self)
        self.backend = backend
        self.attends_in = faster_dtype()
        self.heads, self.gated, self.activation = block.heads, block.gated, block.mlp_in.activation or ""
        self.ln_1, self.attention_norm = block.ln_1, block.attention_norm
        self.qkv = Int8Linear(block.qkv, smoothing_of(block.ln_1, block.qkv))
        self.out = Int8Linear(block.out)
        inward = [block.mlp_in, block.mlp_gate] if block.gated else [block.mlp_in]
        smoothing = smoothing_of(block.ln_2, *inward)
        self.ln_2 = _times(block.ln_2, smoothing)
        self.mlp_in = Int8Linear(block.mlp_in, smoothing, smoothed=True)
        if block.gated:
            self.mlp_gate, self.mlp_norm = Int8Linear(block.mlp_gate, smoothing, smoothed=True), block.mlp_norm
        self.mlp_out = Int8Linear(block.mlp_out)
        self.requires_grad_(False)

    def project(self, y: Tensor, wanted: str = "qkv") -> Tensor:
        B, N, C = y.shape
        if set(wanted) == set("qkv") or C % PANEL:
            return self.qkv(y, None, self.attends_in, self.backend).view(B, N, 3, self.heads, C // self.heads)
        packed = y.new_empty(B, N, 3, C, dtype=self.attends_in)
        for index in ("qkv".index(letter) for letter in wanted):
            packed[:, :, index] = self.qkv(y, (index * C, (index + 1) * C), self.attends_in, self.backend)
        return packed.view(B, N, 3, self.heads, C // self.heads)

    def merge(self, attended: Tensor) -> Tensor:
        if isinstance(self.attention_norm, nn.LayerNorm):
            attended = self.attention_norm(attended.float())
        return self.out(attended, backend=self.backend)

    def after_attention(self, tokens: Sum, backend: str | None = None) -> Sum:
        if not self.gated:
            norm, first, second = self.ln_2, self.mlp_in.weight, self.mlp_out.weight
            given = (*tokens, norm.weight, norm.bias, norm.eps)
            return Sum(int8_mlp(*given, first, second, self.activation, backend=self.backend))
        x, y, *_ = normed(self.ln_2, tokens, backend=backend)
        gate, inner = (layer(y, backend=self.backend) for layer in (self.mlp_gate, self.mlp_in))
        return Sum(x, self.mlp_out(self.mlp_norm(silu_gate(gate, inner, self.backend)), backend=self.backend))

    def check_move(self, fn: Callable[[Tensor], Tensor]) -> None:
        probe = fn(torch.zeros(1, dtype=torch.float32, device="cpu"))
        if probe.dtype != torch.float32 or probe.device.type != "cpu":
            raise ModelError(
                f"a model in int8 stays on the CPU with its scales in float32, and was asked for {probe.dtype} on "
                f"{probe.device}: load it anew with that dtype and device"
            )


def smoothing_of(norm: nn.LayerNorm, *layers: nn.Linear) -> Tensor:
    """What a LayerNorm's outputs are multiplied with, `[C]`, so that channels of a large gain or bias widen a token's
    range less, at the cost of the weights'.

    Source: SmoothQuant (Xiao et al. 2023) with α = 1/2, by the LayerNorm's own numbers instead of images.
    """
    largest = norm.weight.abs() * _USUAL_LARGEST + norm.bias.abs()
    weights = torch.stack([layer.weight.abs().amax(0) for layer in layers]).amax(0)
    smallest = torch.finfo(torch.float32).tiny
    ratio = (weights / largest.clamp_min(smallest)).sqrt()
    usual = ratio.median().clamp_min(smallest)
    return (ratio / usual).nan_to_num(1.0, 1.0, 1.0).clamp(2**-8, 2**8)


def _times(norm: nn.LayerNorm, smoothing: Tensor) -> nn.LayerNorm:
    """A LayerNorm whose outputs are those of `norm` times `smoothing`."""
    with torch.device("meta"):
        smooth = nn.LayerNorm(norm.normalized_shape, norm.eps)
    smooth.weight, smooth.bias = (nn.Parameter(each * smoothing) for each in (norm.weight, norm.bias))
    return smooth


def quantize_blocks(vision: GemVisionTransformer) -> GemVisionTransformer:
    """The transformer itself, which is on the CPU, in float32 and with each block replaced by one in int8."""
    vision.to(torch.float32)
    with torch.no_grad():
        for index, block in enumerate(vision.blocks):
            vision.blocks[index] = Int8Block(block, vision.backend)  # type: ignore[arg-type]
    return vision


def in_int8(vision: GemVisionTransformer) -> bool:
    """Whether `quantize_blocks` was here."""
    return any(isinstance(block, Int8Block) for block in vision.blocks)
