"""GEM's own attention as ONNX nodes: self-self attention of each projection, averaged."""

from collections.abc import Mapping

from gem_fast.options import GemOptions

from .layers import Layers


def decomposed_gem(
    layers: Layers, options: GemOptions, normed: str, projections: Mapping[str, str], heads: int, head_width: int
) -> str:
    """Eq. 3-7 of GEM, `[B, N, C]` of the products' type, out of attentions as the layers write them.

    Args:
        layers: the graph.
        options: of GEM.
        normed: the block's input after its LayerNorm, `[B, N, C]` float32.
        projections: `[B, N, C]` by the letters q, k and v, and under their joined letters all of them together.
        heads, head_width: C is their product.
    """
    op, letters = layers.graph.op, options.projections
    root = op("Sqrt", inverse_temperature(layers, options, normed, head_width))
    # One after the other: less is held than with the heads of all side by side, in the same time.
    outputs = [_self_self(layers, options, projections[each], projections["v"], root, heads) for each in letters]
    return outputs[0] if len(letters) == 1 else layers.low(op("Mean", *map(layers.wide, outputs)))  # Eq. 7


def inverse_temperature(layers: Layers, options: GemOptions, normed: str, head_width: int) -> str:
    """Eq. 4: the mean norm of an image's tokens over sqrt(D), `[B, 1, 1, 1]` float32; or the fixed one."""
    op, constant, scalar = layers.graph.op, layers.graph.constant, layers.graph.scalar
    if options.inverse_temperature is not None:
        return scalar(options.inverse_temperature)
    norms = op("ReduceL2", normed, constant([-1]), keepdims=1)
    mean = op("ReduceMean", norms, constant([1]), keepdims=1)
    return op("Unsqueeze", op("Mul", mean, scalar(head_width**-0.5)), constant([3]))


def _self_self(layers: Layers, options: GemOptions, p: str, value: str, root: str, heads: int) -> str:
    """Eq. 5 and 6 of one projection, `[B, N, C]` in and out; `root` is the square root of the inverse temperature.

    One tensor is query, key and value of an iteration: (√c·p)(√c·p)ᵀ = c·p pᵀ, and the output's factor of √c is
    what the next one needs, or falls away where rows are normalised.
    """
    keys = _scaled(layers, options, p, root, heads)
    for _ in range(options.iterations):
        refined = layers.attend(keys, keys, keys, heads, 1.0)  # Eq. 5
        keys = _scaled(layers, options, refined, root, heads) if options.normalize else refined
    return layers.attend(keys, keys, value, heads, 1.0)  # Eq. 6


def _scaled(layers: Layers, options: GemOptions, p: str, factor: str, heads: int) -> str:
    """p `[B, N, heads*D]`, normalised for each head where GEM does, times a factor; of the products' type."""
    op, constant = layers.graph.op, layers.graph.constant
    apart = op("Reshape", layers.wide(p), constant([0, 0, heads, -1]))
    if options.normalize:
        factor = op("Mul", layers.reciprocal_norm(apart), factor)
    return layers.low(op("Reshape", op("Mul", apart, factor), constant([0, 0, -1])))
