"""The image encoder as an ONNX graph: pixels to L2-normalised patch features, by the forward of `towers.vit`."""

import torch
from onnx import TensorProto

from gem_fast.errors import ExportError
from gem_fast.towers.block import Block
from gem_fast.towers.vit import GemVisionTransformer

from .gem_attention import distance_bias, pair_attention
from .image_head import Grid, image_embedding, patch_embeddings
from .layers import Layers
from .resampling import MATRICES
from .rotary import Rotation, rotation, turned


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
    graph.output("patch_features", patch_embeddings(layers, vision, gem, grid), TensorProto.FLOAT, shape)
    if unchanged and feature_surgery:
        embedding: list[int | str] = ["batch", vision.config.embed_dim]
        graph.output("image_embedding", image_embedding(layers, vision, unchanged), TensorProto.FLOAT, embedding)
    if unchanged and original:
        graph.output("original_features", patch_embeddings(layers, vision, unchanged, grid), TensorProto.FLOAT, shape)


class ImageEncoderWriter:
    """The two paths of the forward on one graph, a method's and the unchanged one. The residual streams are float32."""

    def __init__(self, layers: Layers, vision: GemVisionTransformer) -> None:
        self.layers = layers
        self.graph = layers.graph
        self.vision = vision
        self.blocks: list[Block] = list(vision.blocks)  # type: ignore[arg-type]

    def forward(self, pixels: str, size: tuple[int, int] | None, original: bool) -> tuple[str, str | None, Grid]:
        """Tokens `[B, N, C]` of the method's path and, with `original`, the unchanged one's, and the grid."""
        vision, method = self.vision, self.vision.method
        if self.layers.attention.packed and not method.normalize:
            raise ExportError(
                f"the plugins take L2-normalised projections; for {method.name} with normalize=False use attention onnx"
            )
        if self.layers.attention.packed and vision.config.rotated:
            raise ExportError("the plugins take q and k as they are: leave out rotated, or use attention onnx")
        x, grid = self.embed(pixels, size)
        tables = rotation(self.layers, vision, size, grid)
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
                read = self.turned(projections, tables) if vision.config.rotated else projections
                own = self.attention(normed, read, block.heads, head_width, bias)
                g = self.add(g if adds else None, own, name, block)
                adds = method.residual or method.beside
                g = self.after_attention(g, name, block) if method.mlp else g
            if goes_on:
                if not shared:
                    projections, _ = self.normalized(x, name, block, "qkv")
                x = self.original_block(x, self.turned(projections, tables), name, block)
                g = g if changed else x
        return g, x if original else None, grid

    def letters(self) -> str:
        """Of the projections that a changed block needs, as its kind of attention takes them."""
        return "qkv" if self.layers.attention.packed else self.vision.method.wanted

    def normalized(self, x: str, name: str, block: Block, letters: str) -> tuple[dict[str, str], str]:
        """Projections of tokens after their LayerNorm, and these, float32."""
        normed = self.layers.layer_norm(x, f"{name}.ln_1", block.ln_1)
        return self.project(normed, name, block, letters), normed

    def bias(self, grid: Grid) -> str | None:
        """What the method adds to the logits, for all its blocks."""
        sigma = self.vision.method.distance
        if sigma is None:
            return None
        h, w = map(self.graph.shape, grid)
        return distance_bias(self.layers, h, w, sigma, self.vision.config.class_token)

    def attention(self, normed: str, projections: dict[str, str], heads: int, head_width: int, bias: str | None) -> str:
        """The method's attention, `[B, N, C]` of the products' type."""
        layers, method = self.layers, self.vision.method
        if method.refines:
            return layers.attention.gem(layers, method, normed, projections, heads, head_width)
        if not method.pairs:
            return projections["v"]
        return pair_attention(layers, method, normed, projections, heads, head_width, bias)

    def add(self, x: str | None, own: str, name: str, block: Block) -> str:
        """x, if any, and what the attention gives; float32."""
        layers, out = self.layers, block.out
        if self.vision.config.attention_norm:
            own = layers.low(layers.layer_norm(layers.wide(own), f"{name}.attention_norm", block.attention_norm))
        merged = layers.wide(layers.linear(own, f"{name}.out", out.weight, out.bias))
        return merged if x is None else self.graph.op("Add", x, merged)

    def embed(self, pixels: str, size: tuple[int, int] | None) -> tuple[str, Grid]:
        """Tokens `[B, N, C]` before the first block, and the grid."""
        op, constant, vision = self.graph.op, self.graph.constant, self.vision
        patch = vision.config.patch_size
        h, w = grid = self.grid(pixels, size)
        # A convolution whose steps are its kernel is a linear layer on patches, and serves every type.
        cut = op("Reshape", pixels, self.graph.shape(0, 3, h, patch, w, patch))
        patches = op("Transpose", cut, perm=[0, 2, 4, 1, 3, 5])  # [B, h, w, 3, patch, patch]
        patches = self.layers.low(op("Reshape", patches, constant([0, -1, 3 * patch**2])))
        embedding = vision.patch_embedding
        tokens = self.layers.linear(patches, "patch_embedding", embedding.weight.flatten(1), embedding.bias)
        x = op("Add", self.layers.wide(tokens), self.positions(size, grid))
        if vision.config.class_token:
            first = (vision.class_embedding + vision.position_embedding[0]).view(1, 1, -1)
            batch = op("Shape", pixels, start=0, end=1)
            every = op("Concat", batch, constant([1, 1]), axis=0)
            x = op("Concat", op("Expand", self.graph.weight("class_token", first.float()), every), x, axis=1)
        return self.layers.layer_norm(x, "ln_pre", vision.ln_pre) if vision.config.pre_norm else x, grid

    def grid(self, pixels: str, size: tuple[int, int] | None) -> Grid:
        """The grid of pixels of a fixed size, or of any."""
        patch = self.vision.config.patch_size
        if size:
            return size[0] // patch, size[1] // patch
        sides = self.graph.op("Shape", pixels, start=2, end=4)
        counts = self.graph.op("Div", sides, self.graph.constant([patch]))
        h, w = self.graph.ops("Split", (counts,), 2, axis=0, num_outputs=2)
        return h, w

    def positions(self, size: tuple[int, int] | None, grid: Grid) -> str:
        """Position embeddings of the patches, `[h*w, C]` float32: stored for a fixed size, else resampled in the graph.

        Bicubic resampling is separable, so it is a product with a matrix for each axis.
        """
        vision, op, constant = self.vision, self.graph.op, self.graph.constant
        first = vision.config.first_patch
        if size:
            patch = vision.config.patch_size
            resampled = vision.positions(size[0] // patch, size[1] // patch)[first:].float()
            return self.graph.weight(f"positions.{size[0]}x{size[1]}", resampled)
        trained_h, trained_w = vision.config.grid
        image = vision.position_embedding[first:].float().view(trained_h, trained_w, -1)
        stored = self.graph.weight("positions", image.reshape(trained_h, -1))
        h, w = map(self.graph.shape, grid)
        matrix = MATRICES[vision.config.resampling]
        rows = op("MatMul", matrix(self.graph, constant([trained_h]), h), stored)  # [h, trained_w*C]
        rows = op("Reshape", rows, constant([0, trained_w, -1]))
        columns = op("MatMul", matrix(self.graph, constant([trained_w]), w), rows)  # [h, w, C]
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

    def turned(self, projections: dict[str, str], tables: Rotation | None) -> dict[str, str]:
        """The projections, q and k turned by the angles of their places."""
        if tables is None:
            return projections
        heads = self.vision.config.heads
        return {
            letter: turned(self.layers, each, heads, tables) if letter in ("q", "k") else each
            for letter, each in projections.items()
        }

    def original_block(self, x: str, projections: dict[str, str], name: str, block: Block) -> str:
        """The unchanged block, given its projections: `[B, N, C]` float32 in and out."""
        layers, head_width = self.layers, self.vision.config.width // block.heads
        q, k, v = (projections[letter] for letter in "qkv")
        attended = layers.attend(q, k, v, block.heads, head_width**-0.5)
        return self.after_attention(self.add(x, attended, name, block), name, block)

    def after_attention(self, x: str, name: str, block: Block) -> str:
        """The block's second half: `[B, N, C]` float32 in and out."""
        layers, activation = self.layers, self.vision.config.activation
        normed = layers.low(layers.layer_norm(x, f"{name}.ln_2", block.ln_2))
        if block.gated:
            return self.graph.op("Add", x, layers.wide(self.gated_mlp(normed, name, block)))
        inner = layers.wide(layers.mlp(normed, name, block.mlp_in, block.mlp_out, activation))
        return self.graph.op("Add", x, inner)

    def gated_mlp(self, normed: str, name: str, block: Block) -> str:
        """Two branches, one of them through SiLU, and a LayerNorm behind their product; of the products' type."""
        layers, op = self.layers, self.graph.op
        gate = layers.linear(normed, f"{name}.mlp_gate", block.mlp_gate.weight, block.mlp_gate.bias)
        inner = layers.linear(normed, f"{name}.mlp_in", block.mlp_in.weight, block.mlp_in.bias)
        product = layers.wide(op("Mul", op("Mul", gate, op("Sigmoid", gate)), inner))
        inner = layers.low(layers.layer_norm(product, f"{name}.mlp_norm", block.mlp_norm))
        return layers.linear(inner, f"{name}.mlp_out", block.mlp_out.weight, block.mlp_out.bias)
