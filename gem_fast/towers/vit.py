"""The vision transformer of CLIP with a method's changed blocks, over packed weights."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gem_fast.kernels import (
    add_layer_norm,
    linear,
    pair_attention,
    self_self_attention,
    unit_rows,
)
from gem_fast.kernels.layer_norm import Normed

from ..errors import ModelError
from ..method import Method, as_method
from ..options import GemOptions
from .attention_pool import AttentionPool
from .block import Block, Sum, normed
from .layer import Linear
from .positions import KeptPositions, written
from .rotary import rotate, rotation_of
from .vision_config import VisionConfig


class VisionFeatures(NamedTuple):
    """L2-normalised features, float32 or wider.

    Attributes:
        patches: the method's patch features `[B, h, w, E]`.
        original_patches: patch features of the unchanged path `[B, h, w, E]`, or None if not asked for.
        original_class: the model's own embedding of the image `[B, E]`, in CLIP of the class token, or None.
    """

    patches: Tensor
    original_patches: Tensor | None = None
    original_class: Tensor | None = None


class GemVisionTransformer(nn.Module):
    """ViT forward with both paths: the original one, and that of a method, such as GEM, over the last blocks.

    Source: "Grounding Everything" (CVPR 2024), Figure 2 and Eq. 3-7; the order of operations is the authors' package's.
    Those of the other methods are told in `docs/methods.md`.

    Attributes:
        config, method: its shape, and what becomes of its last blocks.
        backend: of the kernels, by name; None for what serves.
    """

    def __init__(
        self, config: VisionConfig, method: Method | GemOptions | None = None, backend: str | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.method = as_method(method)
        self.backend = backend
        self._kept = KeptPositions()
        self._moved = 0
        if self.method.blocks > config.layers:
            named = "gem_blocks" if self.method.name == "gem" else f"blocks of the method {self.method.name}"
            raise ModelError(f"{named} is {self.method.blocks}, but the model has {config.layers} blocks")
        patch, width = config.patch_size, config.width
        self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=config.patch_bias)
        if config.class_token:
            self.class_embedding = nn.Parameter(torch.zeros(width))
        tokens = config.first_patch + config.grid[0] * config.grid[1]
        self.position_embedding = nn.Parameter(torch.zeros(tokens, width))
        self.ln_pre = nn.LayerNorm(width, config.norm_eps) if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(width, config.norm_eps)
        inner = config.pool_width or width
        if config.pool == "attention":
            mlp = (config.pool_mlp_width, config.pool_activation)
            self.pool = AttentionPool(width, inner, config.pool_heads, *mlp, config.norm_eps)
        embed_dim, bias = config.embed_dim, config.projection_bias
        self.projection = Linear(inner, embed_dim, bias) if config.projection else nn.Identity()
        self.requires_grad_(False)

    def forward(self, pixels: Tensor, original: bool = False) -> VisionFeatures:
        """Normalised pixels `[B, 3, H, W]`, sides multiples of the patch, to L2-normalised features.

        With `original`, the unchanged path is finished too; without, what only it needs is never computed.
        """
        h, w = self.grid(pixels)
        method, rotated = self.method, self.config.rotated
        rotation = rotation_of(self.config, h, w, self.position_embedding)
        blocks: list[Block] = list(self.blocks)  # type: ignore[arg-type]
        first = len(blocks) - method.blocks
        x = self.embed(pixels, h, w)
        for block in blocks[:first]:
            tokens, y, *_ = normed(block.ln_1, x, backend=self.backend)
            x = block.original(tokens, rotate(block.project(y), rotation), self.backend)
        g, adds = x, method.residual
        for index, block in enumerate(blocks[first:], first):
            goes_on = original or (method.beside and index + 1 < len(blocks))
            begins = index == first
            shared = method.beside or begins  # both paths read the same tokens
            read, scale = self.normalize(block, x if shared else g, g if shared and not begins else None)
            before = read.aside if read.aside is not None else read.tokens
            plain = block.project(read.y, "qkv" if goes_on and shared else method.wanted)
            qkv = rotate(plain, rotation) if rotated or (goes_on and shared) else plain
            changed = block.merge(self.attention(qkv if rotated else plain, scale, (h, w)))
            g = Sum(before, changed) if adds else Sum(changed)
            adds = method.residual or method.beside
            if method.mlp:
                g = block.after_attention(g, self.backend)
            if goes_on:
                tokens, own_path = read.tokens, qkv
                if not shared:
                    tokens, y, *_ = normed(block.ln_1, x, backend=self.backend)
                    own_path = rotate(block.project(y), rotation)
                x = block.original(tokens, own_path, self.backend)
        # With the class token, so that one patch alone is no product of a single row, which has bits of its own.
        first, own = self.config.first_patch, self.head(*g)
        patches = own[:, first:].unflatten(1, (h, w))
        if not original:
            return VisionFeatures(patches)
        tokens = x.added()
        finished = self.head(tokens) if method.blocks else own
        return VisionFeatures(patches, finished[:, first:].unflatten(1, (h, w)), self.whole(tokens, finished))

    def normalize(self, block: Block, tokens: Sum, aside: Sum | None = None) -> tuple[Normed, Tensor | float]:
        """A changed block's normalised tokens, and its scale: a number, of each image, or of each token, of which an
        image's is the mean."""
        head_width = tokens.x.shape[-1] // block.heads
        adaptive = self.method.adaptive
        found = normed(block.ln_1, tokens, head_width if adaptive else None, aside, self.backend)
        return found, self.method.scale_of(head_width) if found.scale is None else found.scale

    def attention(self, qkv: Tensor, scale: Tensor | float, grid: tuple[int, int]) -> Tensor:
        """The method's attention of projections qkv [B, N, 3, H, D] -> [B, N, C]."""
        method = self.method
        if not method.pairs:
            return qkv[:, :, 2].flatten(2)
        if not method.refines:
            options = {"average": method.average, "grid": grid, "sigma": method.distance}
            if not self.config.class_token and method.distance is not None:
                options["class_token"] = False
            if isinstance(scale, Tensor) and scale.ndim > 1:
                scale = scale.mean(-1)
            return pair_attention(qkv, scale, method.attention, **options, backend=self.backend)  # type: ignore[arg-type]
        mean = self_self_attention(
            qkv,
            scale,
            iterations=method.iterations,
            projections=method.projections,
            normalize=method.normalize,
            backend=self.backend,
        )
        return mean if method.average else mean * len(method.pairs)

    def grid(self, pixels: Tensor) -> tuple[int, int]:
        """Patches in height and width of pixels `[B, 3, H, W]`; ValueError if they do not fit the patch."""
        patch = self.config.patch_size
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
            raise ValueError(f"pixels must be floating [B, 3, H, W], got {pixels.dtype} {list(pixels.shape)}")
        height, width = pixels.shape[2:]
        if height % patch or width % patch or not height or not width:
            raise ValueError(f"pixels are {height}×{width}; both sides must be multiples of the patch, {patch}")
        return height // patch, width // patch

    def embed(self, pixels: Tensor, h: int, w: int) -> Sum:
        """Tokens before the first block, of h*w patches and the class token if there is one."""
        x, places, norm = self.patches(pixels), self.positions(h, w), self.ln_pre
        front = self.class_embedding[None] if self.config.class_token else None
        if isinstance(norm, nn.LayerNorm):
            given = (x, places, norm.weight, norm.bias, norm.eps)
            return Sum(add_layer_norm(*given, front=front, backend=self.backend).y)
        return Sum(x if front is None else torch.cat([front.expand(x.shape[0], -1, -1), x], dim=1), places)

    def patches(self, pixels: Tensor) -> Tensor:
        """Embedded patches [B, h*w, C]."""
        dtype, layer = self.position_embedding.dtype, self.patch_embedding
        if pixels.device.type != "cuda":
            return layer(pixels.to(dtype)).flatten(2).transpose(1, 2)
        # cuDNN multiplies float32 in TF32 unless a switch of its own forbids it; products obey that of products.
        return linear(unfolded(pixels, self.config.patch_size, dtype), layer.weight.flatten(1), layer.bias)

    def positions(self, h: int, w: int) -> Tensor:
        """Position embedding [N, C], resampled for another grid than that of training."""
        config = self.config
        if (h, w) == config.grid:
            return self.position_embedding
        return self._kept.table(self.position_embedding, config.first_patch, config.grid, (h, w), config.resampling)

    @property
    def weights_in_use(self) -> tuple[int, int]:
        """Changes with where the weights lie, their type, and what positions are made of."""
        return self._moved, written(self.position_embedding)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GemVisionTransformer":
        for block in self.blocks:
            block.check_move(fn)  # type: ignore[operator]  # before anything has moved
        self._kept.clear()
        self._moved += 1
        return super()._apply(fn, recurse)

    def head(self, x: Tensor, branch: Tensor | None = None) -> Tensor:
        """Tokens [B, N, C], and what is added to them, to L2-normalised embeddings [B, N, E], float32 or wider."""
        x = normed(self.ln_post, Sum(x, branch), backend=self.backend).y
        if self.config.pool == "attention":
            x = self.pool.of_each(x, self.config.pooling)
        return unit_rows(self.projection(x), self.backend)

    def whole(self, x: Tensor, finished: Tensor) -> Tensor:
        """The image's embedding [B, E], of tokens x [B, N, C] and what the head makes of each."""
        config = self.config
        if config.pool == "class":
            return finished[:, 0]
        if config.pool == "attention":
            return unit_rows(self.projection(self.pool(self.ln_post(x))), self.backend)
        patches = x[:, config.first_patch :]
        mean = self.ln_post(patches.mean(1)) if config.norm_after_mean else self.ln_post(patches).mean(1)
        return unit_rows(self.projection(mean), self.backend)


def unfolded(pixels: Tensor, patch: int, dtype: torch.dtype) -> Tensor:
    """Patches of pixels [B, 3, H, W] as rows of a product, [B, h*w, 3 * patch²]."""
    patches = pixels.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).permute(0, 2, 4, 1, 3, 5)
    return patches.to(dtype, memory_format=torch.contiguous_format).flatten(3).flatten(1, 2)
