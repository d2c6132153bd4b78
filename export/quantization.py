"""Linear layers in int8 as ONNX nodes: inputs rounded by what they hold at run time, or by ranges found before."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from .plain import affine, weight_scale

if TYPE_CHECKING:
    from .layers import Layers

Ranges = Mapping[str, tuple[float, float]]  # the least and largest value that each layer takes, by the layer's name
Product = Callable[["Layers", str, str, Tensor], str]  # x `[..., in]`, a name and a weight `[out, in]` to `[..., out]`


def int8_product(ranges: Ranges | None) -> Product:
    """The product of a layer in int8, by the ranges if there are any."""
    return _dynamic if ranges is None else partial(_static, ranges)


def _dynamic(layers: "Layers", x: str, name: str, weight: Tensor) -> str:
    """One scale for all of x at run time.

    Written as ONNX Runtime's own tool writes it, so that its optimiser makes one operation of it.
    """
    op = layers.graph.op
    rounded, scale = _rounded(layers, name, weight)
    integers, step, zero = layers.graph.ops("DynamicQuantizeLinear", (x,), 3)
    sums = op("MatMulInteger", integers, rounded, zero)
    return op("Mul", op("Cast", sums, to=TensorProto.FLOAT), op("Mul", step, scale))


def _static(ranges: Ranges, layers: "Layers", x: str, name: str, weight: Tensor) -> str:
    """A float product of what was rounded and widened again (QDQ), of which runtimes make one of integers."""
    graph = layers.graph
    step, zero = affine(*map(torch.tensor, ranges[_layer(name)]))
    grid = graph.scalar(step.item()), graph.constant(zero.item(), np.uint8)
    widened = graph.op("DequantizeLinear", graph.op("QuantizeLinear", x, *grid), *grid)
    return graph.op("MatMul", widened, graph.op("DequantizeLinear", *_rounded(layers, name, weight), axis=1))


def _rounded(layers: "Layers", name: str, weight: Tensor) -> tuple[str, str]:
    """The weight `[in, out]` int8, and a scale for each output `[out]`."""
    scale = weight_scale(weight)
    rounded = (weight / scale[:, None]).round().to(torch.int8)
    return layers.graph.weight(f"{name}.weight.int8", rounded.T), layers.graph.weight(f"{name}.scale", scale)


def _layer(name: str) -> str:
    """The layer of a name: some of its projections alone are of the same input."""
    return re.sub(r"\.qkv_[qkv]+$", ".qkv", name)


def observing(names: list[str]) -> Product:
    """The product in float32; for each layer its name is added, and an output `range.I` that has both ends."""

    def product(layers: "Layers", x: str, name: str, weight: Tensor) -> str:
        graph = layers.graph
        ends = [graph.op("Reshape", graph.op(kind, x, keepdims=0), graph.constant([1])) for kind in _ENDS]
        graph.output(f"range.{len(names)}", graph.op("Concat", *ends, axis=0), TensorProto.FLOAT, [2])
        names.append(_layer(name))
        return graph.op("MatMul", x, graph.weight(f"{name}.weight", weight.T))

    return product


_ENDS = ("ReduceMin", "ReduceMax")
