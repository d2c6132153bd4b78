"""Layers of a transformer as ONNX nodes, in the types and with the attention that were asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from gem_fast.dtypes import dtype_name
from gem_fast.method import Method

from .builder import ELEMENT_TYPES, GraphBuilder
from .quantization import Product

_SMALLEST_NORM = 1e-12  # torch.nn.functional.normalize's
_GELU_OPSET = 20


@dataclass(frozen=True)
class Attention:
    """How a kind of attention is written.

    Attributes:
        attend: what `Layers.attend` does, with the layers first.
        gem: GEM's own attention, see `gem_attention.decomposed_gem`.
        packed: `gem` needs q, k and v in one tensor.
    """

    attend: Callable[["Layers", str, str, str, int, float, bool, str | None], str]
    gem: Callable[["Layers", Method, str, Mapping[str, str], int, int], str]
    packed: bool = False


@dataclass(frozen=True)
class Layers:
    """Nodes on one graph. Values are float32 `wide` or of the products' type, `low`; in float32 both are the same.

    Attributes:
        block_product: how the linear layers of blocks multiply, where it is not in that type.
    """

    graph: GraphBuilder
    attention: Attention
    dtype: str = "float32"
    block_product: Product | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dtype_name(self.dtype))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the products."""
        return getattr(torch, self.dtype)

    def low(self, x: str) -> str:
        """To the type of the products."""
        return x if self.dtype == "float32" else self.graph.op("Cast", x, to=ELEMENT_TYPES[self.torch_dtype])

    def wide(self, x: str) -> str:
        """To float32."""
        return x if self.dtype == "float32" else self.graph.op("Cast", x, to=TensorProto.FLOAT)

    def low_weight(self, name: str, value: Tensor) -> str:
        """A weight in the type of the products."""
        return self.graph.weight(name, value.to(self.torch_dtype))

    def layer_norm(self, x: str, name: str, norm: Any) -> str:
        """LayerNorm over the last axis, float32 in and out."""
        weight = self.graph.weight(f"{name}.weight", norm.weight.float())
        bias = self.graph.weight(f"{name}.bias", norm.bias.float())
        return self.graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.eps)

    def linear(self, x: str, name: str, weight: Tensor, bias: Tensor | None = None) -> str:
        """x `[..., in]` with weight `[out, in]` and bias `[out]` to `[..., out]`, in and out of the products' type."""
        if self.block_product and name.startswith("blocks."):
            product = self.block_product(self, x, name, weight)
        else:
            # Stored transposed, so that no runtime has to do it.
            product = self.graph.op("MatMul", x, self.low_weight(f"{name}.weight", weight.T))
        return product if bias is None else self.graph.op("Add", product, self.low_weight(f"{name}.bias", bias))

    def activate(self, x: str, activation: str) -> str:
        """gelu, gelu_tanh or quick_gelu."""
        op, scalar = self.graph.op, self.scalar
        if activation == "quick_gelu":
            return op("Mul", x, op("Sigmoid", op("Mul", x, scalar(1.702))))
        if self.graph.opset >= _GELU_OPSET:
            return op("Gelu", x, approximate="tanh" if activation == "gelu_tanh" else "none")
        if activation == "gelu_tanh":
            cubic = op("Mul", op("Mul", x, x), x)
            inner = op("Mul", op("Add", x, op("Mul", cubic, scalar(0.044715))), scalar((2 / np.pi) ** 0.5))
            return op("Mul", op("Mul", x, op("Add", op("Tanh", inner), scalar(1.0))), scalar(0.5))
        erf = op("Erf", op("Div", x, scalar(2**0.5)))
        return op("Mul", op("Mul", x, op("Add", erf, scalar(1.0))), scalar(0.5))

    def scalar(self, value: float) -> str:
        """A constant of the products' type."""
        if self.dtype == "float32":
            return self.graph.scalar(value)
        return self.low_weight(f"scalar.{value:g}", torch.tensor(value))

    def unit(self, x: str) -> str:
        """L2-normalised over the last axis, float32."""
        return self.graph.op("Mul", x, self.reciprocal_norm(x))

    def reciprocal_norm(self, x: str) -> str:
        """One over the L2 norm of the last axis, which is kept with length 1; float32."""
        norm = self.graph.op("ReduceL2", x, self.graph.constant([-1]), keepdims=1)
        return self.graph.op("Reciprocal", self.graph.op("Max", norm, self.graph.scalar(_SMALLEST_NORM)))

    def attend(
        self, q: str, k: str, v: str, heads: int, scale: float, causal: bool = False, bias: str | None = None
    ) -> str:
        """softmax(scale · q kᵀ + bias) v over heads that lie side by side: `[B, N, heads*D]` all.

        Everything is of the products' type; the bias is `[1 or B, 1, N, N]`, and goes without `causal`.
        """
        return self.attention.attend(self, q, k, v, heads, scale, causal, bias)

    def typed(self, x: str, rank: int) -> str:
        """x, a value of the products' type that shape inference can't know."""
        kind, shape = ELEMENT_TYPES[self.torch_dtype], [None] * rank
        self.graph.graph.value_info.append(helper.make_tensor_value_info(x, kind, shape))
        return x

    def mlp(self, x: str, name: str, mlp_in: nn.Linear, mlp_out: nn.Linear, activation: str) -> str:
        """The two linear layers of a block, in and out of the products' type."""
        inner = self.activate(self.linear(x, f"{name}.mlp_in", mlp_in.weight, mlp_in.bias), activation)
        return self.linear(inner, f"{name}.mlp_out", mlp_out.weight, mlp_out.bias)
