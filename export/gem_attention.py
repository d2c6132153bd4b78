"""The attention of methods as ONNX nodes: GEM's self-self attention of each projection, and that of plain pairs."""

from collections.abc import Mapping, Sequence

from gem_fast.method import Method

from .layers import Layers


def decomposed_gem(
    layers: Layers, method: Method, normed: str, projections: Mapping[str, str], heads: int, head_width: int
) -> str:
    """Eq. 3-7 of GEM, `[B, N, C]` of the products' type, out of attentions as the layers write them.

    Args:
        layers: the graph.
        method: GEM, with its options.
        normed: the block's input after its LayerNorm, `[B, N, C]` float32.
        projections: `[B, N, C]` by the letters q, k and v, and under their joined letters all of them together.
        heads, head_width: C is their product.
    """
    op, letters = layers.graph.op, method.projections
    root = op("Sqrt", inverse_temperature(layers, method, normed, head_width))
    # One after the other: less is held than with the heads of all side by side, in the same time.
    outputs = [_self_self(layers, method, projections[each], projections["v"], root, heads) for each in letters]
    return together(layers, method, outputs)  # Eq. 7


def together(layers: Layers, method: Method, outputs: Sequence[str]) -> str:
    """The sum or the mean of the attentions of a method, of the products' type."""
    if len(outputs) == 1:
        return outputs[0]
    return layers.low(layers.graph.op("Mean" if method.average else "Sum", *map(layers.wide, outputs)))


def pair_attention(
    layers: Layers,
    method: Method,
    normed: str,
    projections: Mapping[str, str],
    heads: int,
    head_width: int,
    bias: str | None,
) -> str:
    """Attention of pairs of projections as they are, `[B, N, C]`; arguments as in `decomposed_gem`, and a bias."""
    fixed = 1.0 if method.adaptive else method.scale_of(head_width)
    own = dict(projections)
    if method.adaptive:
        scale = inverse_temperature(layers, method, normed, head_width)
        for letter in {a for a, _ in method.pairs}:
            own[letter] = _scaled(layers, method, projections[letter], scale, heads)
    value = projections["v"]
    attended = [layers.attend(own[a], projections[b], value, heads, fixed, bias=bias) for a, b in method.pairs]
    return together(layers, method, attended)


def distance_bias(layers: Layers, h: str, w: str, sigma: float, class_token: bool = True) -> str:
    """NACLIP's bias `[1, 1, N, N]` of the products' type, for a grid of h × w patches, int64 `[1]` each."""
    op, constant = layers.graph.op, layers.graph.constant

    def gaussian(side: str, shape: list[int]) -> str:
        end = op("Squeeze", side, constant([0]))
        places = layers.graph.real(op("Range", constant(0), end, constant(1)))
        apart = op("Sub", op("Unsqueeze", places, constant([1])), op("Unsqueeze", places, constant([0])))
        nearness = op("Exp", op("Mul", op("Mul", apart, apart), layers.graph.scalar(-1 / (2 * sigma**2))))
        return op("Unsqueeze", nearness, constant(shape))

    product = op("Mul", gaussian(h, [1, 3]), gaussian(w, [0, 2]))  # [h, w, h, w]
    patches = op("Mul", h, w)
    square = op("Reshape", product, op("Concat", patches, patches, axis=0))
    if class_token:
        square = op("Pad", square, constant([1, 1, 0, 0]))
    return layers.low(op("Unsqueeze", square, constant([0, 1])))


def inverse_temperature(layers: Layers, method: Method, normed: str, head_width: int) -> str:
    """Eq. 4: the mean norm of an image's tokens over sqrt(D), `[B, 1, 1, 1]` float32; or the fixed one."""
    op, constant, scalar = layers.graph.op, layers.graph.constant, layers.graph.scalar
    if not method.adaptive:
        return scalar(method.scale_of(head_width))
    norms = op("ReduceL2", normed, constant([-1]), keepdims=1)
    mean = op("ReduceMean", norms, constant([1]), keepdims=1)
    return op("Unsqueeze", op("Mul", mean, scalar(head_width**-0.5)), constant([3]))


def _self_self(layers: Layers, method: Method, p: str, value: str, root: str, heads: int) -> str:
    """Eq. 5 and 6 of one projection, `[B, N, C]` in and out; `root` is the square root of the inverse temperature.

    One tensor is query, key and value of an iteration: (√c·p)(√c·p)ᵀ = c·p pᵀ, and the output's factor of √c is
    what the next one needs, or falls away where rows are normalised.
    """
    keys = _scaled(layers, method, p, root, heads)
    for _ in range(method.iterations):
        refined = layers.attend(keys, keys, keys, heads, 1.0)  # Eq. 5
        keys = _scaled(layers, method, refined, root, heads) if method.normalize else refined
    return layers.attend(keys, keys, value, heads, 1.0)  # Eq. 6


def _scaled(layers: Layers, method: Method, p: str, factor: str, heads: int) -> str:
    """p `[B, N, heads*D]`, normalised for each head where GEM does, times a factor; of the products' type."""
    op, constant = layers.graph.op, layers.graph.constant
    apart = op("Reshape", layers.wide(p), constant([0, 0, heads, -1]))
    if method.normalize:
        factor = op("Mul", layers.reciprocal_norm(apart), factor)
    return layers.low(op("Reshape", op("Mul", apart, factor), constant([0, 0, -1])))
