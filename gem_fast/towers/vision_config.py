"""What a family's vision transformer is made of. Needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rotary:
    """As timm's `RotaryEmbeddingCat` counts, with pairs of neighbouring channels.

    Attributes:
        reference: height and width of the grid that every other one is stretched to, or None.
        offset: of rows and columns.
        columns_first: the first half of the channels is turned by the column.
        temperature: base of the frequencies.
    """

    reference: tuple[int, int] | None = None
    offset: float = 0.0
    columns_first: bool = False
    temperature: float = 10000.0


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
