"""Layers of a transformer as ONNX nodes, in the types and with the attention that were asked for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from .builder import ORT_DOMAIN, GraphBuilder

TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
ONNX_DTYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_SMALLEST_NORM = 1e-12  # torch.nn.functional.normalize's
_GELU_OPSET = 20


@dataclass(frozen=True)
class Layers:
    """Nodes on one graph. Values are float32 `wide` or of the products' type, `low`; in fp32 both are the same."""

    graph: GraphBuilder
    attention: str = "portable"
    dtype: str = "fp32"
    quantize: str | None = None

    def low(self, x: str) -> str:
        """To the type of the products."""
        return x if self.dtype == "fp32" else self.graph.op("Cast", x, to=ONNX_DTYPES[self.dtype])

    def wide(self, x: str) -> str:
        """To float32."""
        return x if self.dtype == "fp32" else self.graph.op("Cast", x, to=TensorProto.FLOAT)

    def low_weight(self, name: str, value: Tensor) -> str:
        """A weight in the type of the products."""
        return self.graph.weight(name, value.to(TORCH_DTYPES[self.dtype]))

    def layer_norm(self, x: str, name: str, norm: Any) -> str:
        """LayerNorm over the last axis, float32 in and out."""
        weight = self.graph.weight(f"{name}.weight", norm.weight.float())
        bias = self.graph.weight(f"{name}.bias", norm.bias.float())
        return self.graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.eps)

    def linear(self, x: str, name: str, weight: Tensor, bias: Tensor | None = None) -> str:
        """x `[..., in]` with weight `[out, in]` and bias `[out]` to `[..., out]`, in and out of the products' type."""
        if self.quantize and name.startswith("blocks."):
            product = self._quantized_product(x, name, weight)
        else:
            # Stored transposed, so that no runtime has to do it.
            product = self.graph.op("MatMul", x, self.low_weight(f"{name}.weight", weight.T))
        return product if bias is None else self.graph.op("Add", product, self.low_weight(f"{name}.bias", bias))

    def _quantized_product(self, x: str, name: str, weight: Tensor) -> str:
        """x `[..., in]` with weight `[out, in]` in int8: a scale for each output, and one for all of x at run time.

        Written as ONNX Runtime's own tool writes it, so that its optimiser makes one operation of it.
        """
        op = self.graph.op
        scale = (weight.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        integers, step, zero = self.graph.ops("DynamicQuantizeLinear", (x,), 3)
        sums = op("MatMulInteger", integers, self.graph.weight(f"{name}.weight.int8", rounded.T), zero)
        scales = op("Mul", step, self.graph.weight(f"{name}.scale", scale))
        return op("Mul", op("Cast", sums, to=TensorProto.FLOAT), scales)

    def activate(self, x: str, activation: str) -> str:
        """gelu, gelu_tanh or quick_gelu."""
        op, scalar = self.graph.op, self._scalar
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

    def _scalar(self, value: float) -> str:
        """A constant of the products' type."""
        if self.dtype == "fp32":
            return self.graph.scalar(value)
        return self.low_weight(f"scalar.{value:g}", torch.tensor(value))

    def unit(self, x: str) -> str:
        """L2-normalised over the last axis, float32."""
        return self.graph.op("Mul", x, self.reciprocal_norm(x))

    def reciprocal_norm(self, x: str) -> str:
        """One over the L2 norm of the last axis, which is kept with length 1; float32."""
        norm = self.graph.op("ReduceL2", x, self.graph.constant([-1]), keepdims=1)
        return self.graph.op("Reciprocal", self.graph.op("Max", norm, self.graph.scalar(_SMALLEST_NORM)))

    def attend(self, q: str, k: str, v: str, heads: int, scale: float, causal: bool = False) -> str:
        """softmax(scale · q kᵀ) v over heads that lie side by side: `[B, N, heads*D]` all, of the products' type."""
        if self.attention == "ort":
            return self.graph.op(
                "MultiHeadAttention",
                q,
                k,
                v,
                domain=ORT_DOMAIN,
                num_heads=heads,
                scale=scale,
                unidirectional=int(causal),
            )
        if self.attention == "onnx":
            return self.graph.op(
                "Attention",
                q,
                k,
                v,
                q_num_heads=heads,
                kv_num_heads=heads,
                scale=scale,
                is_causal=int(causal),
                softmax_precision=None if self.dtype == "fp32" else TensorProto.FLOAT,
            )
        if self.attention in ("tensorrt", "plugin"):
            return self._heads_first(q, k, v, heads, scale, causal)
        return self._decomposed(q, k, v, heads, scale, causal)

    def _heads_first(self, q: str, k: str, v: str, heads: int, scale: float, causal: bool) -> str:
        """`Attention` over `[B, heads, N, D]`, the only form of it that TensorRT takes."""
        op, constant = self.graph.op, self.graph.constant
        split = [op("Transpose", op("Reshape", x, constant([0, 0, heads, -1])), perm=[0, 2, 1, 3]) for x in (q, k, v)]
        attended = op("Attention", *split, scale=scale, is_causal=int(causal))
        return op("Reshape", op("Transpose", attended, perm=[0, 2, 1, 3]), constant([0, 0, -1]))

    def typed(self, x: str, rank: int) -> str:
        """x, a value of the products' type that shape inference can't know."""
        shape = [None] * rank
        self.graph.graph.value_info.append(helper.make_tensor_value_info(x, ONNX_DTYPES[self.dtype], shape))
        return x

    def _decomposed(self, q: str, k: str, v: str, heads: int, scale: float, causal: bool) -> str:
        op, constant = self.graph.op, self.graph.constant

        def split(x: str, order: list[int]) -> str:
            return op("Transpose", op("Reshape", x, constant([0, 0, heads, -1])), perm=order)

        queries = split(q if scale == 1 else op("Mul", q, self._scalar(scale)), [0, 2, 1, 3])
        logits = self.wide(op("MatMul", queries, split(k, [0, 2, 3, 1])))  # [B, heads, N, N]
        if causal:
            logits = op("Add", logits, self._causal_mask(q))
        weights = self.low(op("Softmax", logits, axis=-1))
        merged = op("Transpose", op("MatMul", weights, split(v, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
        return op("Reshape", merged, constant([0, 0, -1]))

    def _causal_mask(self, x: str) -> str:
        """0 on and below the diagonal and a very low number above it, `[N, N]` for x `[B, N, C]`."""
        op, constant = self.graph.op, self.graph.constant
        length = op("Shape", x, start=1, end=2)
        square = op("Concat", length, length, axis=0)
        lowest = self.graph.constant([np.finfo(np.float32).min], np.float32)
        return op("Trilu", op("Expand", lowest, square), constant(1), upper=1)

    def mlp(self, x: str, name: str, mlp_in: nn.Linear, mlp_out: nn.Linear, activation: str) -> str:
        """The two linear layers of a block, in and out of the products' type."""
        inner = self.activate(self.linear(x, f"{name}.mlp_in", mlp_in.weight, mlp_in.bias), activation)
        return self.linear(inner, f"{name}.mlp_out", mlp_out.weight, mlp_out.bias)
