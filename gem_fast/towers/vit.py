"""The vision transformer of CLIP with a method's changed blocks, over packed weights."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gem_fast.kernels import (
    layer_norm_and_temperature,
    linear,
    pair_attention,
    query_key_attention,
    self_self_attention,
)

from ..method import Method, as_method
from ..options import GemOptions


@dataclass(frozen=True)
class VisionConfig:
    """Shape of a CLIP vision transformer with a class token."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    patch_size: int
    grid: tuple[int, int]  # patches of the training image, height and width
    embed_dim: int
    activation: str = "gelu"  # gelu, gelu_tanh or quick_gelu
    norm_eps: float = 1e-5
    pre_norm: bool = True


class VisionFeatures(NamedTuple):
    """L2-normalised features, float32 or wider.

    Attributes:
        patches: the method's patch features `[B, h, w, E]`.
        original_patches: patch features of the unchanged path `[B, h, w, E]`, or None if not asked for.
        original_class: class token of the unchanged path `[B, E]` (CLIP's image embedding), or None.
    """

    patches: Tensor
    original_patches: Tensor | None = None
    original_class: Tensor | None = None


class Linear(nn.Linear):
    """A linear layer and the activation after it, if any."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, activation: str | None = None) -> None:
        super().__init__(inputs, outputs, bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, self.activation)


class Block(nn.Module):
    """A transformer block; LayerScale is folded into `out` and `mlp_out` when weights are packed."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.heads = config.heads
        self.ln_1 = nn.LayerNorm(width, eps)
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.ln_2 = nn.LayerNorm(width, eps)
        self.mlp_in = Linear(width, config.mlp_width, activation=config.activation)
        self.mlp_out = Linear(config.mlp_width, width)

    def project(self, y: Tensor, wanted: str = "qkv") -> Tensor:
        """Packed projections of normalised tokens: [B, N, C] -> [B, N, 3, H, D]; those not wanted stay unset."""
        B, N, C = y.shape
        if set(wanted) == set("qkv"):
            return self.qkv(y).view(B, N, 3, self.heads, -1)
        packed = y.new_empty(B, N, 3, C)
        for letter in wanted:
            index = "qkv".index(letter)
            rows = slice(index * C, (index + 1) * C)
            packed[:, :, index] = linear(y, self.qkv.weight[rows], self.qkv.bias[rows])
        return packed.view(B, N, 3, self.heads, -1)

    def original(self, x: Tensor, qkv: Tensor, backend: str | None = None) -> Tensor:
        """The unchanged block, given its projections: [B, N, C] -> [B, N, C]."""
        return self.after_attention(x + self.out(query_key_attention(qkv, backend)))

    def after_attention(self, x: Tensor) -> Tensor:
        """The block's second half: [B, N, C] -> [B, N, C]."""
        return x + self.mlp_out(self.mlp_in(self.ln_2(x)))


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
        if self.method.blocks > config.layers:
            named = "gem_blocks" if self.method.name == "gem" else f"blocks of the method {self.method.name}"
            raise ValueError(f"{named} is {self.method.blocks}, but the model has {config.layers} blocks")
        patch, width = config.patch_size, config.width
        self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.position_embedding = nn.Parameter(torch.zeros(1 + config.grid[0] * config.grid[1], width))
        self.ln_pre = nn.LayerNorm(width, config.norm_eps) if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(width, config.norm_eps)
        self.projection = Linear(width, config.embed_dim, bias=False)
        self.requires_grad_(False)

    def forward(self, pixels: Tensor, original: bool = False) -> VisionFeatures:
        """Normalised pixels `[B, 3, H, W]`, sides multiples of the patch, to L2-normalised features.

        With `original`, the unchanged path is finished too; without, what only it needs is never computed.
        """
        h, w = self.grid(pixels)
        method = self.method
        blocks: list[Block] = list(self.blocks)  # type: ignore[arg-type]
        first = len(blocks) - method.blocks
        x = self.embed(pixels, h, w)
        for block in blocks[:first]:
            x = block.original(x, block.project(block.ln_1(x)), self.backend)
        g, adds = x, method.residual
        for index, block in enumerate(blocks[first:], first):
            goes_on = original or (method.beside and index + 1 < len(blocks))
            shared = method.beside or index == first  # both paths read the same tokens
            y, scale = self.normalize(block, x if shared else g)
            qkv = block.project(y, "qkv" if goes_on and shared else method.wanted)
            changed = block.out(self.attention(qkv, scale, (h, w)))
            g = g + changed if adds else changed
            adds = method.residual or method.beside
            if method.mlp:
                g = block.after_attention(g)
            if goes_on:
                x = block.original(x, qkv if shared else block.project(block.ln_1(x)), self.backend)
        # With the class token, so that one patch alone is no product of a single row, which has bits of its own.
        own = self.head(g)
        patches = own[:, 1:].unflatten(1, (h, w))
        if not original:
            return VisionFeatures(patches)
        finished = self.head(x) if method.blocks else own
        return VisionFeatures(patches, finished[:, 1:].unflatten(1, (h, w)), finished[:, 0])

    def normalize(self, block: Block, x: Tensor) -> tuple[Tensor, Tensor | float]:
        """A changed block's normalised tokens of x [B, N, C], and its scale: a number, or of each image [B]."""
        norm, head_width = block.ln_1, x.shape[-1] // block.heads
        if not self.method.adaptive:
            return norm(x), self.method.scale_of(head_width)
        return layer_norm_and_temperature(x, norm.weight, norm.bias, norm.eps, head_width, backend=self.backend)

    def attention(self, qkv: Tensor, scale: Tensor | float, grid: tuple[int, int]) -> Tensor:
        """The method's attention of projections qkv [B, N, 3, H, D] -> [B, N, C]."""
        method = self.method
        if not method.pairs:
            return qkv[:, :, 2].flatten(2)
        if not method.refines:
            options = {"average": method.average, "grid": grid, "sigma": method.distance}
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

    def embed(self, pixels: Tensor, h: int, w: int) -> Tensor:
        """Tokens [B, 1 + h*w, C] before the first block."""
        x = self.patch_embedding(pixels.to(self.class_embedding.dtype)).flatten(2).transpose(1, 2)
        class_token = self.class_embedding.expand(x.shape[0], 1, -1)
        return self.ln_pre(torch.cat([class_token, x], dim=1) + self.positions(h, w))

    def positions(self, h: int, w: int) -> Tensor:
        """Position embedding [1 + h*w, C], resampled bicubic with antialias for another grid than that of training."""
        trained = self.position_embedding
        if (h, w) == self.config.grid:
            return trained
        wide = torch.promote_types(trained.dtype, torch.float32)
        # MPS has no antialiased bicubic resampling in every torch that we support.
        place = torch.device("cpu") if trained.device.type == "mps" else trained.device
        image = trained[1:].to(place, wide).unflatten(0, self.config.grid)
        rows, columns = (_resampling(image.new_empty(n), m) for n, m in zip(self.config.grid, (h, w), strict=True))
        resampled = torch.einsum("hi,ijc,wj->hwc", rows, image, columns)
        return torch.cat([trained[:1], resampled.flatten(0, 1).to(trained)])

    def head(self, x: Tensor) -> Tensor:
        """Tokens [B, N, C] to L2-normalised embeddings [B, N, E], float32 or wider."""
        x = self.projection(self.ln_post(x))
        return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def _resampling(like: Tensor, length: int) -> Tensor:
    """Weights [length, n] that resample an axis as long as `like` [n], bicubic with antialias."""
    # Only the last axis of the identity changes: torch resamples rows wrongly where an output is one column wide.
    identity = torch.eye(len(like), dtype=like.dtype, device=like.device)[None, None]
    return F.interpolate(identity, size=(len(like), length), mode="bicubic", antialias=True)[0, 0].T
