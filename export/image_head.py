"""What follows the last block, as ONNX nodes: embeddings of patches, and the model's own of the image."""

import numpy as np

from gem_fast.towers.layer import Linear
from gem_fast.towers.vit import GemVisionTransformer

from .layers import Layers

Grid = tuple[int | str, int | str]  # patches in height and width: numbers, or int64 `[1]` in a graph for any size


def patch_embeddings(layers: Layers, vision: GemVisionTransformer, x: str, grid: Grid) -> str:
    """Tokens `[B, N, C]` float32 to L2-normalised embeddings of the patches, `[B, h, w, E]`."""
    normed = _norm(layers, vision, _tokens(layers, x, vision.config.first_patch))
    if vision.config.pool == "attention":
        normed = _alone(layers, vision, normed)
    return layers.graph.op("Reshape", _projected(layers, vision, normed), layers.graph.shape(0, *grid, -1))


def image_embedding(layers: Layers, vision: GemVisionTransformer, x: str) -> str:
    """Tokens `[B, N, C]` float32 to the model's own L2-normalised embedding of the image, `[B, E]`."""
    op, constant, config = layers.graph.op, layers.graph.constant, vision.config
    if config.pool == "attention":
        return _projected(layers, vision, _attended(layers, vision, _norm(layers, vision, x)))
    if config.pool == "class":
        first = _projected(layers, vision, _norm(layers, vision, _tokens(layers, x, 0, 1)))
        return op("Squeeze", first, constant([1]))
    patches = _tokens(layers, x, config.first_patch)
    if config.norm_after_mean:
        mean = _norm(layers, vision, op("ReduceMean", patches, constant([1]), keepdims=0))
    else:
        normed = layers.wide(_norm(layers, vision, patches))
        mean = layers.low(op("ReduceMean", normed, constant([1]), keepdims=0))
    return _projected(layers, vision, mean)


def _tokens(layers: Layers, x: str, first: int, end: int | None = None) -> str:
    op, constant = layers.graph.op, layers.graph.constant
    if not first and end is None:
        return x
    return op("Slice", x, constant([first]), constant([end or np.iinfo(np.int64).max]), constant([1]))


def _norm(layers: Layers, vision: GemVisionTransformer, x: str) -> str:
    """After the last LayerNorm, of the products' type."""
    return layers.low(layers.layer_norm(x, "ln_post", vision.ln_post))


def _projected(layers: Layers, vision: GemVisionTransformer, x: str) -> str:
    projection = vision.projection
    if isinstance(projection, Linear):
        x = layers.linear(x, "projection", projection.weight, projection.bias)
    return layers.unit(layers.wide(x))


def _alone(layers: Layers, vision: GemVisionTransformer, x: str) -> str:
    """What the attending head makes of each token alone, or what it adds up; `[B, N, C]` of the products' type."""
    pool = vision.pool
    value = layers.linear(x, "pool.value", pool.value.weight, pool.value.bias)
    alone = layers.linear(value, "pool.out", pool.out.weight, pool.out.bias)
    return alone if vision.config.pooling == "value" else _finished(layers, vision, alone)


def _attended(layers: Layers, vision: GemVisionTransformer, x: str) -> str:
    """The head's attention over all tokens `[B, N, C]`, and what follows it: `[B, C]`, of the products' type."""
    op, constant, pool = layers.graph.op, layers.graph.constant, vision.pool
    apart = constant([0, 0, pool.heads, -1])
    key, value = (
        layers.wide(op("Reshape", layers.linear(x, f"pool.{name}", layer.weight, layer.bias), apart))
        for name, layer in (("key", pool.key), ("value", pool.value))
    )
    query = pool.query.view(pool.heads, -1).float() * (len(pool.query) // pool.heads) ** -0.5
    logits = op("ReduceSum", op("Mul", key, layers.graph.weight("pool.query", query)), constant([3]), keepdims=1)
    weighed = op("Mul", op("Softmax", logits, axis=1), value)  # [B, N, heads, D]
    merged = op("Reshape", op("ReduceSum", weighed, constant([1]), keepdims=0), constant([0, -1]))
    return _finished(layers, vision, layers.linear(layers.low(merged), "pool.out", pool.out.weight, pool.out.bias))


def _finished(layers: Layers, vision: GemVisionTransformer, x: str) -> str:
    """With the head's MLP added, or normalised where it has none."""
    pool = vision.pool
    normed = layers.low(layers.layer_norm(layers.wide(x), "pool.norm", pool.norm))
    if not pool.has_mlp:
        return normed
    inner = layers.mlp(normed, "pool", pool.mlp_in, pool.mlp_out, vision.config.pool_activation)
    return layers.graph.op("Add", x, inner)
