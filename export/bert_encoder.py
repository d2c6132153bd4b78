"""BERT as an ONNX graph: token ids to L2-normalised embeddings, by the forward of `towers.bert`."""

import numpy as np
from onnx import TensorProto

from gem_fast.towers.bert import BertBlock, BertText

from .layers import Layers


def write_bert(layers: Layers, tower: BertText) -> None:
    """Add inputs, nodes and outputs to the layers' graph.

    Padding is not attended to, so `token_ids` may be as long as the longest text of the batch.
    """
    graph, config = layers.graph, tower.config
    op, constant = graph.op, graph.constant
    tokens = graph.input("token_ids", TensorProto.INT64, ["texts", "length"])
    seen = op("Cast", op("Not", op("Equal", tokens, constant(config.padding))), to=TensorProto.FLOAT)
    length = op("Shape", tokens, start=1, end=2)
    positions = graph.weight("position_embedding", tower.position_embedding)
    embedded = op("Gather", graph.weight("word_embedding", tower.word_embedding), tokens)
    x = op("Add", embedded, op("Slice", positions, constant([0]), length, constant([0])))
    x = layers.layer_norm(x, "ln_embedding", tower.ln_embedding)
    bias = _bias(layers, seen, length)
    blocks: list[BertBlock] = list(tower.blocks)  # type: ignore[arg-type]
    for index, block in enumerate(blocks):
        x = _block(layers, x, f"blocks.{index}", block, bias, config.activation)
    if config.pool == "first":
        x = op("Gather", x, constant(0), axis=1)
    else:
        weights = op("Unsqueeze", seen, constant([2]))
        total = op("ReduceSum", op("Mul", x, weights), constant([1]), keepdims=0)
        x = op("Div", total, op("ReduceSum", weights, constant([1]), keepdims=0))
    for index, layer in enumerate(tower.projection):
        x = layers.linear(x, f"projection.{index}", layer.weight, layer.bias)  # type: ignore[arg-type]
        x = layers.activate(x, layer.activation) if layer.activation else x  # type: ignore[arg-type]
    embed_dim = config.projection[-1] if config.projection else config.width
    graph.output("text_embeddings", layers.unit(x), TensorProto.FLOAT, ["texts", embed_dim])


def _bias(layers: Layers, seen: str, length: str) -> str:
    """0 for tokens that are seen and a very low number for padding, `[texts, 1, length, length]`."""
    op, constant = layers.graph.op, layers.graph.constant
    lowest = layers.graph.scalar(float(np.finfo(np.float32).min))
    hidden = op("Mul", op("Sub", layers.graph.scalar(1.0), seen), lowest)
    shape = op("Concat", constant([1, 1]), length, constant([1]), axis=0)
    return op("Expand", op("Unsqueeze", hidden, constant([1, 2])), shape)


def _block(layers: Layers, x: str, name: str, block: BertBlock, bias: str, activation: str) -> str:
    op = layers.graph.op
    packed = layers.linear(x, f"{name}.qkv", block.qkv.weight, block.qkv.bias)
    q, k, v = layers.graph.ops("Split", (packed,), 3, axis=-1, num_outputs=3)
    head_width = block.out.in_features // block.heads
    attended = layers.attend(q, k, v, block.heads, head_width**-0.5, bias=bias)
    x = op("Add", x, layers.linear(attended, f"{name}.out", block.out.weight, block.out.bias))
    x = layers.layer_norm(x, f"{name}.ln_1", block.ln_1)
    inner = layers.mlp(x, name, block.mlp_in, block.mlp_out, activation)
    return layers.layer_norm(op("Add", x, inner), f"{name}.ln_2", block.ln_2)
