"""The image encoder as an ONNX graph: pixels to L2-normalised patch features, by the forward of `towers.vit`."""

import numpy as np
import torch
from onnx import TensorProto

from gem_fast.errors import ExportError
from gem_fast.towers.vit import Block, GemVisionTransformer, Linear

from .gem_attention import distance_bias, pair_attention
from .layers import Layers
from .resampling import bicubic_matrix


def write_image_encoder(
    layers: Layers,
    vision: GemVisionTransformer,
    size: tuple[int, int] | None,
    *,
    original: bool,
    feature_surgery: bool = False,
    pixels: str | None = None,
) -> None:
    """Add inputs, nodes and outputs to the layers' graph.

    Args:
        layers: the graph, empty but for the nodes that make `pixels`.
        vision: the model, in float32 on the CPU.
        size: height and width of the pixels, or None for any multiple of the patch.
        original: also give the unchanged path's patch features.
        feature_surgery: also give what it needs, CLIP's own L2-normalised image embedding `[B, E]`.
        pixels: normalised pixels `[B, 3, H, W]`; by default they are an input.
    """
    graph, patch = layers.graph, vision.config.patch_size
    height, width = size or ("height", "width")
    pixels = pixels or graph.input("pixels", TensorProto.FLOAT, ["batch", 3, height, width])
    writer = ImageEncoderWriter(layers, vision)
    gem, unchanged, grid = writer.forward(pixels, size, original or feature_surgery)
    h, w = (size[0] // patch, size[1] // patch) if size else ("h", "w")
    shape: list[int | str] = ["batch", h, w, vision.config.embed_dim]
    graph.output("patch_features", writer.head(gem, grid), TensorProto.FLOAT, shape)
    if unchanged and feature_surgery:
        embedding: list[int | str] = ["batch", vision.config.embed_dim]
        graph.output("image_embedding", writer.image_embedding(unchanged), TensorProto.FLOAT, embedding)
    if unchanged and original:
        graph.output("original_features", writer.head(unchanged, grid), TensorProto.FLOAT, shape)


class ImageEncoderWriter:
    """The two paths of the forward on one graph, a method's and the unchanged one. The residual streams are float32."""

    def __init__(self, layers: Layers, vision: GemVisionTransformer) -> None:
        self.layers = layers
        self.graph = layers.graph
        self.vision = vision
        self.blocks: list[Block] = list(vision.blocks)  # type: ignore[arg-type]

    def forward(self, pixels: str, size: tuple[int, int] | None, original: bool) -> tuple[str, str | None, str]:
        """Tokens `[B, N, C]` of the method's path and, with `original`, the unchanged one's, and the grid's h and w."""
        vision, method = self.vision, self.vision.method
        if self.layers.attention.packed and not method.normalize:
            raise ExportError(
                f"the plugins take L2-normalised projections; for {method.name} with normalize=False use attention onnx"
            )
        x, grid = self.embed(pixels, size)
        first = len(self.blocks) - method.blocks
        bias = self.bias(grid)
        g, adds = x, method.residual
        for index, block in enumerate(self.blocks):
            name, head_width = f"blocks.{index}", vision.config.width // block.heads
            changed, last = index >= first, index + 1 == len(self.blocks)
            goes_on = not changed or original or (method.beside and not last)
            shared = method.beside or index <= first  # both paths read the same tokens
            letters = "qkv" if goes_on and shared else self.letters()
            projections, normed = self.normalized(x if shared else g, name, block, letters)
            if changed:
                own = self.attention(normed, projections, block.heads, head_width, bias)
                g = self.add(g if adds else None, own, f"{name}.out", block.out)
                adds = method.residual or method.beside
                g = self.after_attention(g, name, block) if method.mlp else g
            if goes_on:
                if not shared:
                    projections, _ = self.normalized(x, name, block, "qkv")
                x = self.original_block(x, projections, name, block)
                g = g if changed else x
        return g, x if original else None, grid

    def letters(self) -> str:
        """Of the projections that a changed block needs, as its kind of attention takes them."""
        return "qkv" if self.layers.attention.packed else self.vision.method.wanted

    def normalized(self, x: str, name: str, block: Block, letters: str) -> tuple[dict[str, str], str]:
        """Projections of tokens after their LayerNorm, and these, float32."""
        normed = self.layers.layer_norm(x, f"{name}.ln_1", block.ln_1)
        return self.project(normed, name, block, letters), normed

    def bias(self, grid: str) -> str | None:
        """What the method adds to the logits, for all its blocks."""
        sigma = self.vision.method.distance
        if sigma is None:
            return None
        h, w = self.graph.ops("Split", (grid,), 2, axis=0, num_outputs=2)
        return distance_bias(self.layers, h, w, sigma)

    def attention(self, normed: str, projections: dict[str, str], heads: int, head_width: int, bias: str | None) -> str:
        """The method's attention, `[B, N, C]` of the products' type."""
        layers, method = self.layers, self.vision.method
        if method.refines:
            return layers.attention.gem(layers, method, normed, projections, heads, head_width)
        if not method.pairs:
            return projections["v"]
        return pair_attention(layers, method, normed, projections, heads, head_width, bias)

    def add(self, x: str | None, own: str, name: str, out: Linear) -> str:
        """x, if any, and what the attention gives; float32."""
        merged = self.layers.wide(self.layers.linear(own, name, out.weight, out.bias))
        return merged if x is None else self.graph.op("Add", x, merged)

    def embed(self, pixels: str, size: tuple[int, int] | None) -> tuple[str, str]:
        """Tokens `[B, N, C]` before the first block, and h and w of the grid as int64 `[2]`."""
        op, constant, vision = self.graph.op, self.graph.constant, self.vision
        patch = constant([vision.config.patch_size])
        sides = constant(list(size)) if size else op("Shape", pixels, start=2, end=4)
        grid = op("Div", sides, patch)
        h, w = self.graph.ops("Split", (grid,), 2, axis=0, num_outputs=2)
        # A convolution whose steps are its kernel is a linear layer on patches, and serves every type.
        cut = op("Concat", constant([0, 3]), h, patch, w, patch, axis=0)
        patches = op("Transpose", op("Reshape", pixels, cut), perm=[0, 2, 4, 1, 3, 5])  # [B, h, w, 3, patch, patch]
        flat = op("Concat", constant([0]), op("Mul", h, w), constant([3 * vision.config.patch_size**2]), axis=0)
        patches = self.layers.low(op("Reshape", patches, flat))
        tokens = self.layers.linear(patches, "patch_embedding", vision.patch_embedding.weight.flatten(1))
        tokens = op("Add", self.layers.wide(tokens), self.positions(size, h, w))
        first = (vision.class_embedding + vision.position_embedding[0]).view(1, 1, -1)
        batch = op("Shape", pixels, start=0, end=1)
        every = op("Concat", batch, constant([1, 1]), axis=0)
        first_token = op("Expand", self.graph.weight("class_token", first.float()), every)
        x = op("Concat", first_token, tokens, axis=1)
        return self.layers.layer_norm(x, "ln_pre", vision.ln_pre) if vision.config.pre_norm else x, grid

    def positions(self, size: tuple[int, int] | None, h: str, w: str) -> str:
        """Position embeddings of the patches, `[h*w, C]` float32: stored for a fixed size, else resampled in the graph.

        Antialiased bicubic resampling is separable, so it is a product with a matrix for each axis.
        """
        vision, op, constant = self.vision, self.graph.op, self.graph.constant
        if size:
            patch = vision.config.patch_size
            resampled = vision.positions(size[0] // patch, size[1] // patch)[1:].float()
            return self.graph.weight(f"positions.{size[0]}x{size[1]}", resampled)
        trained_h, trained_w = vision.config.grid
        image = vision.position_embedding[1:].float().view(trained_h, trained_w, -1)
        stored = self.graph.weight("positions", image.reshape(trained_h, -1))
        rows = op("MatMul", bicubic_matrix(self.graph, constant([trained_h]), h), stored)  # [h, trained_w*C]
        rows = op("Reshape", rows, constant([0, trained_w, -1]))
        columns = op("MatMul", bicubic_matrix(self.graph, constant([trained_w]), w), rows)  # [h, w, C]
        return op("Reshape", columns, constant([-1, vision.config.width]))

    def project(self, normed: str, name: str, block: Block, letters: str) -> dict[str, str]:
        """The projections that are wanted, each `[B, N, C]`, and under their joined letters all of them together."""
        C = self.vision.config.width
        rows = torch.cat([torch.arange(C) + "qkv".index(letter) * C for letter in letters])
        kind = "qkv" if letters == "qkv" else f"qkv_{letters}"
        packed = self.layers.linear(
            self.layers.low(normed), f"{name}.{kind}", block.qkv.weight[rows], block.qkv.bias[rows]
        )
        if len(letters) == 1:
            return {letters: packed}
        parts = self.graph.ops("Split", (packed,), len(letters), axis=-1, num_outputs=len(letters))
        return {**dict(zip(letters, parts, strict=True)), letters: packed}

    def original_block(self, x: str, projections: dict[str, str], name: str, block: Block) -> str:
        """The unchanged block, given its projections: `[B, N, C]` float32 in and out."""
        layers, head_width = self.layers, self.vision.config.width // block.heads
        attended = layers.attend(projections["q"], projections["k"], projections["v"], block.heads, head_width**-0.5)
        return self.after_attention(self.add(x, attended, f"{name}.out", block.out), name, block)

    def after_attention(self, x: str, name: str, block: Block) -> str:
        """The block's second half: `[B, N, C]` float32 in and out."""
        layers, activation = self.layers, self.vision.config.activation
        normed = layers.low(layers.layer_norm(x, f"{name}.ln_2", block.ln_2))
        inner = layers.wide(layers.mlp(normed, name, block.mlp_in, block.mlp_out, activation))
        return self.graph.op("Add", x, inner)

    def head(self, x: str, grid: str) -> str:
        """Tokens `[B, N, C]` to L2-normalised embeddings of the patches, `[B, h, w, E]`."""
        op, constant = self.graph.op, self.graph.constant
        shape = op("Concat", constant([0]), grid, constant([-1]), axis=0)
        return op("Reshape", self.embedded(x, 1, np.iinfo(np.int64).max), shape)

    def image_embedding(self, x: str) -> str:
        """The class token of `[B, N, C]` as an L2-normalised embedding, `[B, E]`."""
        return self.graph.op("Squeeze", self.embedded(x, 0, 1), self.graph.constant([1]))

    def embedded(self, x: str, first: int, end: int) -> str:
        """Tokens of `[B, N, C]` from `first` to `end` as L2-normalised embeddings, `[B, n, E]`."""
        layers, constant = self.layers, self.graph.constant
        tokens = self.graph.op("Slice", x, constant([first]), constant([end]), constant([1]))
        normed = layers.low(layers.layer_norm(tokens, "ln_post", self.vision.ln_post))
        return layers.unit(layers.wide(layers.linear(normed, "projection", self.vision.projection.weight)))
