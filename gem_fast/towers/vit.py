"""The vision transformer of CLIP with a method's changed blocks, over packed weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gem_fast.kernels import (
    add_layer_norm,
    linear,
    pair_attention,
    query_key_attention,
    self_self_attention,
    unit_rows,
)
from gem_fast.kernels.layer_norm import Normed

from ..method import Method, as_method
from ..options import GemOptions
from .attention_pool import AttentionPool
from .layer import Linear
from .positions import KeptPositions, written
from .rotary import Rotary, rotate, rotation_of


@dataclass(frozen=True)
class VisionConfig:
    """Shape of a vision transformer, and in what its family differs from CLIP's.

    Attributes:
        class_token: a token before those of the patches.
        patch_bias, projection_bias: with a bias, where CLIP has none.
        resampling: of position embeddings for another grid: `"bicubic"` or `"bilinear"` with antialias, `"plain"` for
            bicubic without.
        projection: a linear layer behind the head; without, its width is that of the embedding.
        pool: of what the image embedding is made: the `"class"` token, the `"mean"` of the patches, or `"attention"`
            over all tokens.
        norm_after_mean: the last LayerNorm is that of the mean (CLIPA).
        pool_width, pool_heads, pool_mlp_width, pool_activation: of the attention; its width is 0 for that of the
            tokens, and that of its MLP 0 for a LayerNorm alone (CoCa).
        pooling: a patch's embedding where `pool` is `"attention"`: that of an image of this token alone (`"head"`), or
            what the attention adds up (`"value"`).
        rotary: rotary positions of q and k, if any; `rotated` is whether the method's attention sees them too.
        attention_norm: a LayerNorm between attention and `out` (EVA02).
        gated: an MLP of two branches, one through SiLU, and a LayerNorm behind their product (EVA02).
    """

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
    class_token: bool = True
    patch_bias: bool = False
    projection_bias: bool = False
    resampling: str = "bicubic"
    projection: bool = True
    pool: str = "class"
    norm_after_mean: bool = False
    pool_width: int = 0
    pool_heads: int = 0
    pool_mlp_width: int = 0
    pool_activation: str = "gelu"
    pooling: str = "head"
    rotary: Rotary | None = None
    rotated: bool = False
    attention_norm: bool = False
    gated: bool = False

    @property
    def first_patch(self) -> int:
        """The place of the first patch among the tokens."""
        return int(self.class_token)


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


class Sum(NamedTuple):
    """Tokens `[B, N, C]` that are yet to be added up, which the next LayerNorm does: x, and a branch of the same shape
    or for all images `[N, C]`."""

    x: Tensor
    branch: Tensor | None = None

    def added(self) -> Tensor:
        return self.x if self.branch is None else self.x + self.branch


def normed(
    norm: nn.LayerNorm,
    tokens: Sum,
    head_width: int | None = None,
    aside: Sum | None = None,
    backend: str | None = None,
) -> Normed:
    """Tokens added up and normalised, and with it another sum; arguments as in `add_layer_norm`."""
    pair = None if aside is None or aside.branch is None else (aside.x, aside.branch)
    found = add_layer_norm(*tokens, norm.weight, norm.bias, norm.eps, head_width, pair, backend=backend)
    return found if aside is None or pair else found._replace(aside=aside.x)


class Block(nn.Module):
    """A transformer block; LayerScale is folded into `out` and `mlp_out` when weights are packed."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.heads = config.heads
        self.ln_1 = nn.LayerNorm(width, eps)
        self.qkv = Linear(width, 3 * width)
        self.attention_norm = nn.LayerNorm(width, eps) if config.attention_norm else nn.Identity()
        self.out = Linear(width, width)
        self.ln_2 = nn.LayerNorm(width, eps)
        self.gated = config.gated
        self.mlp_in = Linear(width, config.mlp_width, activation=None if config.gated else config.activation)
        if config.gated:
            self.mlp_gate = Linear(width, config.mlp_width)
            self.mlp_norm = nn.LayerNorm(config.mlp_width, eps)
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

    def original(self, x: Tensor, qkv: Tensor, backend: str | None = None) -> Sum:
        """The unchanged block of tokens [B, N, C], given its projections, rotated where it rotates them."""
        return self.after_attention(Sum(x, self.merge(query_key_attention(qkv, backend))), backend)

    def merge(self, attended: Tensor) -> Tensor:
        """What the heads' results [B, N, C] add to the tokens, [B, N, C]."""
        return self.out(self.attention_norm(attended))

    def after_attention(self, tokens: Sum, backend: str | None = None) -> Sum:
        """The block's second half."""
        x, y, *_ = normed(self.ln_2, tokens, backend=backend)
        inner = self.mlp_in(y, backend)
        if self.gated:
            inner = self.mlp_norm(F.silu(self.mlp_gate(y)) * inner)
        return Sum(x, self.mlp_out(inner))


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
            raise ValueError(f"{named} is {self.method.blocks}, but the model has {config.layers} blocks")
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
