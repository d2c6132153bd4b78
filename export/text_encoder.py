"""The text encoder as an ONNX graph: token ids to L2-normalised embeddings, by open_clip's text transformer or BERT."""

from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from gem_fast.errors import ExportError
from gem_fast.towers.bert import BertText
from gem_fast.towers.text import eos_of, has_class_token, pool_of

from .bert_encoder import write_bert
from .layers import Layers


def write_text_encoder(layers: Layers, tower: Any) -> None:
    """Add inputs, nodes and outputs to the layers' graph.

    Where text attention is causal, as CLIP's, and only the end-of-text token is read, `token_ids` may be cut behind the
    last end-of-text token of the batch: the embeddings stay the same and cost less.

    Args:
        layers: the graph, empty.
        tower: open_clip's text tower, or its CLIP model, whose vision tower is not needed; or our BERT.

    Raises:
        ExportError: it is another one.
    """
    if isinstance(tower, BertText):
        write_bert(layers, tower)
        return
    if not hasattr(tower, "token_embedding"):
        raise ExportError("a text tower of transformers can't be exported; those of RoBERTa and XLM-RoBERTa can")
    graph, causal = layers.graph, tower.attn_mask is not None
    op, constant = graph.op, graph.constant
    tokens = graph.input("token_ids", TensorProto.INT64, ["texts", "length"])
    embedded = op("Gather", graph.weight("token_embedding.weight", tower.token_embedding.weight.float()), tokens)
    positions = graph.weight("position_embedding", tower.positional_embedding.float())
    seen = None
    if has_class_token(tower):
        embedded, seen, causal = *_with_class_token(layers, embedded, tokens, tower), False
    length = op("Shape", embedded, start=1, end=2)
    x = op("Add", embedded, op("Slice", positions, constant([0]), length, constant([0])))
    for index, block in enumerate(tower.transformer.resblocks):
        x = _block(layers, x, f"blocks.{index}", block, causal, seen)
    read = layers.layer_norm(_read(layers, x, tokens, tower), "ln_final", tower.ln_final)
    weight, bias = _projection(tower)
    width = tower.ln_final.normalized_shape[0]
    if weight is not None:
        read, width = layers.linear(read, "text_projection", weight, bias), len(weight)
    graph.output("text_embeddings", layers.unit(read), TensorProto.FLOAT, ["texts", width])


def _with_class_token(layers: Layers, embedded: str, tokens: str, tower: Any) -> tuple[str, str]:
    """CoCa's token behind each text, filled up to the context, and who sees whom, as its weights were trained.

    Its mask of the padding is one token off, the first one counting for the class token.
    """
    graph = layers.graph
    op, constant = graph.op, graph.constant
    one = graph.weight("class_token", tower.cls_emb.float().view(1, 1, -1))
    texts = op("Shape", tokens, start=0, end=1)
    x = op("Concat", embedded, op("Expand", one, op("Concat", texts, constant([1, 1]), axis=0)), axis=1)
    hidden = op("Cast", op("Equal", tokens, constant(tower.pad_id)), to=TensorProto.FLOAT)
    lowest = float(np.finfo(np.float32).min) / 2  # twice that is still a number
    hidden = op("Pad", op("Mul", hidden, graph.scalar(lowest)), constant([0, 1, 0, 0]))
    causal = torch.full((tower.num_pos, tower.num_pos), lowest).triu(1)
    bias = op("Add", graph.weight("causal", causal), op("Unsqueeze", hidden, constant([1, 2])))
    return x, bias


def _read(layers: Layers, x: str, tokens: str, tower: Any) -> str:
    """The token of each text that is read, `[texts, C]`."""
    op, constant, pool = layers.graph.op, layers.graph.constant, pool_of(tower)
    if has_class_token(tower):
        return op("Gather", x, constant(-1), axis=1)
    if pool in ("first", "last"):
        return op("Gather", x, constant(0 if pool == "first" else -1), axis=1)
    # Else the end-of-text token has the highest id; the first of them counts.
    found = op("Equal", tokens, constant(eos_of(tower))) if pool == "eos" else tokens
    end = op("ArgMax", op("Cast", found, to=TensorProto.INT32), axis=1, keepdims=1)
    return op("GatherND", x, end, batch_dims=1)


def _projection(tower: Any) -> tuple[Tensor | None, Tensor | None]:
    """Weight `[E, C]` and bias of what follows the last LayerNorm, if anything does."""
    projection = tower.text_projection
    if isinstance(projection, nn.Linear):
        return projection.weight, projection.bias
    return (None if projection is None else projection.T), None


def _block(layers: Layers, x: str, name: str, block: Any, causal: bool, bias: str | None) -> str:
    op, attn = layers.graph.op, block.attn
    normed = layers.layer_norm(x, f"{name}.ln_1", block.ln_1)
    packed = layers.linear(normed, f"{name}.qkv", attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = layers.graph.ops("Split", (packed,), 3, axis=-1, num_outputs=3)
    attended = layers.attend(q, k, v, attn.num_heads, attn.head_dim**-0.5, causal=causal, bias=bias)
    x = op("Add", x, layers.linear(attended, f"{name}.out", *_scaled(attn.out_proj, block.ls_1)))
    normed = layers.layer_norm(x, f"{name}.ln_2", block.ln_2)
    inner = layers.linear(normed, f"{name}.mlp_in", block.mlp.c_fc.weight, block.mlp.c_fc.bias)
    inner = layers.activate(inner, activation_name(block.mlp.gelu))
    return op("Add", x, layers.linear(inner, f"{name}.mlp_out", *_scaled(block.mlp.c_proj, block.ls_2)))


def _scaled(linear: nn.Linear, scale: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias with LayerScale folded in."""
    gamma = getattr(scale, "gamma", None)
    if gamma is None:
        return linear.weight, linear.bias
    return linear.weight * gamma[:, None], linear.bias * gamma


def activation_name(module: nn.Module) -> str:
    """open_clip's activation module by the name that `Layers.activate` knows."""
    if type(module).__name__ == "QuickGELU":
        return "quick_gelu"
    if isinstance(module, nn.GELU):
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    raise ValueError(f"the text tower's activation {type(module).__name__} is not known to the export")
