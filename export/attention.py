"""Kinds of attention in a graph: for each name of `export_options.ATTENTIONS` how it is written."""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from .builder import ORT_DOMAIN, GraphBuilder
from .gem_attention import decomposed_gem
from .layers import Attention, Layers
from .quantization import Ranges, int8_product
from .tensorrt.nodes import plugin_gem


def make_layers(
    graph: GraphBuilder,
    attention: str = "portable",
    dtype: str = "float32",
    quantize: str | None = None,
    ranges: Ranges | None = None,
) -> Layers:
    """Layers on a graph, by the names of `ExportOptions`; with the ranges of layers in static int8."""
    return Layers(graph, KINDS[attention], dtype, int8_product(ranges) if quantize else None)


def _ort(layers: Layers, q: str, k: str, v: str, heads: int, scale: float, causal: bool, bias: str | None) -> str:
    biased = () if bias is None else ("", "", bias)  # after the bias of projections and the mask of padding
    settings = {"num_heads": heads, "scale": scale, "unidirectional": int(causal)}
    return layers.typed(layers.graph.op("MultiHeadAttention", q, k, v, *biased, domain=ORT_DOMAIN, **settings), 3)


def _operator(layers: Layers, q: str, k: str, v: str, heads: int, scale: float, causal: bool, bias: str | None) -> str:
    precision = None if layers.dtype == "float32" else TensorProto.FLOAT
    return layers.graph.op(
        "Attention",
        *_with_bias((q, k, v), bias),
        q_num_heads=heads,
        kv_num_heads=heads,
        scale=scale,
        is_causal=int(causal),
        softmax_precision=precision,
    )


def _with_bias(inputs: Sequence[str], bias: str | None) -> list[str]:
    """Inputs of the `Attention` operator."""
    return [*inputs] if bias is None else [*inputs, bias]


def _heads_first(
    layers: Layers, q: str, k: str, v: str, heads: int, scale: float, causal: bool, bias: str | None
) -> str:
    """`Attention` over `[B, heads, N, D]`, the only form of it that TensorRT takes."""
    op, constant = layers.graph.op, layers.graph.constant
    split = [op("Transpose", op("Reshape", x, constant([0, 0, heads, -1])), perm=[0, 2, 1, 3]) for x in (q, k, v)]
    attended = op("Attention", *_with_bias(split, bias), scale=scale, is_causal=int(causal))
    return op("Reshape", op("Transpose", attended, perm=[0, 2, 1, 3]), constant([0, 0, -1]))


def _decomposed(
    layers: Layers, q: str, k: str, v: str, heads: int, scale: float, causal: bool, bias: str | None
) -> str:
    op, constant = layers.graph.op, layers.graph.constant

    def split(x: str, order: list[int]) -> str:
        return op("Transpose", op("Reshape", x, constant([0, 0, heads, -1])), perm=order)

    queries = split(q if scale == 1 else op("Mul", q, layers.scalar(scale)), [0, 2, 1, 3])
    logits = layers.wide(op("MatMul", queries, split(k, [0, 2, 3, 1])))  # [B, heads, N, N]
    if bias is not None:
        logits = op("Add", logits, layers.wide(bias))
    if causal:
        logits = op("Add", logits, _causal_mask(layers.graph, q))
    weights = layers.low(op("Softmax", logits, axis=-1))
    merged = op("Transpose", op("MatMul", weights, split(v, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    return op("Reshape", merged, constant([0, 0, -1]))


def _causal_mask(graph: GraphBuilder, x: str) -> str:
    """0 on and below the diagonal and a very low number above it, `[N, N]` for x `[B, N, C]`."""
    length = graph.op("Shape", x, start=1, end=2)
    square = graph.op("Concat", length, length, axis=0)
    lowest = graph.constant([np.finfo(np.float32).min], np.float32)
    return graph.op("Trilu", graph.op("Expand", lowest, square), graph.constant(1), upper=1)


KINDS = {
    "portable": Attention(_decomposed, decomposed_gem),
    "onnx": Attention(_operator, decomposed_gem),
    "ort": Attention(_ort, decomposed_gem),
    "tensorrt": Attention(_heads_first, decomposed_gem),
    "plugin": Attention(_heads_first, plugin_gem, packed=True),
}
