"""The text encoder as an ONNX graph: token ids to L2-normalised embeddings, by the forward of `towers.text_tower`."""

from typing import Any

import numpy as np
import torch
from onnx import TensorProto

from gem_fast.errors import ExportError
from gem_fast.towers.bert import BertText
from gem_fast.towers.text_config import TextConfig
from gem_fast.towers.text_tower import TextBlock, TextTower

from .bert_encoder import write_bert
from .layers import Layers


def write_text_encoder(layers: Layers, tower: Any) -> None:
    """Add inputs, nodes and outputs to the layers' graph.

    Where text attention is causal, as CLIP's, and only the end-of-text token is read, `token_ids` may be cut behind the
    last end-of-text token of the batch: the embeddings stay the same and cost less.

    Args:
        layers: the graph, empty.
        tower: our text transformer or BERT.

    Raises:
        ExportError: it is another one.
    """
    if isinstance(tower, BertText):
        write_bert(layers, tower)
        return
    if not isinstance(tower, TextTower):
        raise ExportError("a text tower of transformers can't be exported; those of RoBERTa and XLM-RoBERTa can")
    graph, config = layers.graph, tower.config
    op, constant = graph.op, graph.constant
    tokens = graph.input("token_ids", TensorProto.INT64, ["texts", "length"])
    embedded = op("Gather", graph.weight("token_embedding.weight", tower.token_embedding.float()), tokens)
    positions = graph.weight("position_embedding", tower.position_embedding.float())
    seen, causal = None, config.causal
    if config.class_token:
        embedded, seen = _with_class_token(layers, embedded, tokens, tower)
        causal = False
    length = op("Shape", embedded, start=1, end=2)
    x = op("Add", embedded, op("Slice", positions, constant([0]), length, constant([0])))
    blocks: list[TextBlock] = list(tower.blocks)  # type: ignore[arg-type]
    for index, block in enumerate(blocks):
        x = _block(layers, x, f"blocks.{index}", block, config, causal, seen)
    read = layers.layer_norm(_read(layers, x, tokens, config), "ln_final", tower.ln_final)
    if config.projection:
        read = layers.linear(read, "text_projection", tower.projection.weight, tower.projection.bias)
    graph.output("text_embeddings", layers.unit(read), TensorProto.FLOAT, ["texts", config.embed_dim])


def _with_class_token(layers: Layers, embedded: str, tokens: str, tower: TextTower) -> tuple[str, str]:
    """CoCa's token behind each text, filled up to the context, and who sees whom, as its weights were trained.

    Its mask of the padding is one token off, the first one counting for the class token.
    """
    graph, config = layers.graph, tower.config
    op, constant = graph.op, graph.constant
    one = graph.weight("class_token", tower.class_embedding.float().view(1, 1, -1))
    texts = op("Shape", tokens, start=0, end=1)
    x = op("Concat", embedded, op("Expand", one, op("Concat", texts, constant([1, 1]), axis=0)), axis=1)
    hidden = op("Cast", op("Equal", tokens, constant(config.padding)), to=TensorProto.FLOAT)
    lowest = float(np.finfo(np.float32).min) / 2  # twice that is still a number
    hidden = op("Pad", op("Mul", hidden, graph.scalar(lowest)), constant([0, 1, 0, 0]))
    later = torch.full((config.positions, config.positions), lowest if config.causal else 0.0).triu(1)
    bias = op("Add", graph.weight("causal", later), op("Unsqueeze", hidden, constant([1, 2])))
    return x, bias


def _read(layers: Layers, x: str, tokens: str, config: TextConfig) -> str:
    """The token of each text that is read, `[texts, C]`."""
    op, constant = layers.graph.op, layers.graph.constant
    if config.class_token:
        return op("Gather", x, constant(-1), axis=1)
    if config.pool in ("first", "last"):
        return op("Gather", x, constant(0 if config.pool == "first" else -1), axis=1)
    # Else the end-of-text token has the highest id; the first of them counts.
    found = op("Equal", tokens, constant(config.end)) if config.pool == "eos" else tokens
    end = op("ArgMax", op("Cast", found, to=TensorProto.INT32), axis=1, keepdims=1)
    return op("GatherND", x, end, batch_dims=1)


def _block(
    layers: Layers, x: str, name: str, block: TextBlock, config: TextConfig, causal: bool, bias: str | None
) -> str:
    op = layers.graph.op
    normed = layers.layer_norm(x, f"{name}.ln_1", block.ln_1)
    packed = layers.linear(normed, f"{name}.qkv", block.qkv.weight, block.qkv.bias)
    q, k, v = layers.graph.ops("Split", (packed,), 3, axis=-1, num_outputs=3)
    scale = (config.width // config.heads) ** -0.5
    attended = layers.attend(q, k, v, config.heads, scale, causal=causal, bias=bias)
    x = op("Add", x, layers.linear(attended, f"{name}.out", block.out.weight, block.out.bias))
    normed = layers.layer_norm(x, f"{name}.ln_2", block.ln_2)
    return op("Add", x, layers.mlp(normed, name, block.mlp_in, block.mlp_out, config.activation))
