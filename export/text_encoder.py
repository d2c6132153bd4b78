"""The text encoder as an ONNX graph: token ids to L2-normalised embeddings, by open_clip's text transformer."""

from typing import Any

from onnx import TensorProto
from torch import Tensor, nn

from .layers import Layers


def write_text_encoder(layers: Layers, tower: Any) -> None:
    """Add inputs, nodes and outputs to the layers' graph.

    CLIP's text attention is causal and only the end-of-text token is read, so `token_ids` may be cut behind the last
    end-of-text token of the batch: the embeddings stay the same and cost less.

    Args:
        layers: the graph, empty.
        tower: open_clip's CLIP model; its vision tower is not needed.
    """
    graph = layers.graph
    op, constant = graph.op, graph.constant
    tokens = graph.input("token_ids", TensorProto.INT64, ["texts", "length"])
    embedded = op("Gather", graph.weight("token_embedding.weight", tower.token_embedding.weight.float()), tokens)
    positions = graph.weight("position_embedding", tower.positional_embedding.float())
    length = op("Shape", tokens, start=1, end=2)
    x = op("Add", embedded, op("Slice", positions, constant([0]), length, constant([0])))
    for index, block in enumerate(tower.transformer.resblocks):
        x = _block(layers, x, f"blocks.{index}", block)
    # The end-of-text token has the highest id; the first of them counts.
    end = op("ArgMax", op("Cast", tokens, to=TensorProto.INT32), axis=1, keepdims=1)
    last = layers.layer_norm(op("GatherND", x, end, batch_dims=1), "ln_final", tower.ln_final)
    result = layers.unit(layers.linear(last, "text_projection", tower.text_projection.T))
    graph.output("text_embeddings", result, TensorProto.FLOAT, ["texts", tower.text_projection.shape[1]])


def _block(layers: Layers, x: str, name: str, block: Any) -> str:
    op, attn = layers.graph.op, block.attn
    normed = layers.layer_norm(x, f"{name}.ln_1", block.ln_1)
    packed = layers.linear(normed, f"{name}.qkv", attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = layers.graph.ops("Split", (packed,), 3, axis=-1, num_outputs=3)
    attended = layers.attend(q, k, v, attn.num_heads, attn.head_dim**-0.5, causal=True)
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
