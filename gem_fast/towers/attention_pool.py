"""Heads of a learnt query that attends over all tokens: SigLIP's and PE's, with an MLP behind it, and CoCa's.

CoCa's has 256 queries, of which the first one's result is the image's embedding: the others are for captions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gem_fast.kernels.linear import linear_of_each

from .layer import Linear

POOLINGS = ("head", "value")  # what a patch's embedding can be


class AttentionPool(nn.Module):
    """Attention pooling. The query, which is the same for all images, is projected when weights are packed.

    Args:
        width: of the tokens.
        inner: of the attention and of what it gives.
        heads: of the attention.
        mlp_width: of the MLP; 0 for a LayerNorm alone in its place.
        activation, eps: of the MLP and of the LayerNorm.
    """

    def __init__(self, width: int, inner: int, heads: int, mlp_width: int, activation: str, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(inner))
        self.key = Linear(width, inner)
        self.value = Linear(width, inner)
        self.out = Linear(inner, inner)
        self.norm = nn.LayerNorm(inner, eps)
        self.has_mlp = mlp_width > 0
        if self.has_mlp:
            self.mlp_in = Linear(inner, mlp_width, activation=activation)
            self.mlp_out = Linear(mlp_width, inner)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, C] after the last LayerNorm, to what is one for the image, [B, inner]."""
        key, value = self.key(x), self.value(x)
        attend = _by_products if x.device.type == "cpu" and not torch.compiler.is_compiling() else _by_torch
        return self.finish(self.out(attend(self.query.unflatten(0, (self.heads, -1)), key, value)))

    def of_each(self, x: Tensor, pooling: str) -> Tensor:
        """Tokens [B, N, C] to [B, N, inner]: as if each were an image's only one, or what the attention adds up."""
        alone = self.out(self.value(x))
        return alone if pooling == "value" else self.finish(alone)

    def finish(self, pooled: Tensor) -> Tensor:
        normed = self.norm(pooled)
        return pooled + self.mlp_out(self.mlp_in(normed)) if self.has_mlp else normed


def _by_torch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What a query [H, D] attends to in keys and values [B, N, H*D], [B, H*D]."""
    key, value = (each.unflatten(-1, query.shape).transpose(1, 2) for each in (key, value))
    pooled = F.scaled_dot_product_attention(query[None, :, None].expand(len(key), -1, -1, -1), key, value)
    return pooled.flatten(1)


def _by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same by products of single images, in float32 or wider: torch cuts the tokens by the number of threads."""
    wide = torch.promote_types(query.dtype, torch.float32)
    heads, width = query.shape
    queries = torch.block_diag(*(query.to(wide) * width**-0.5))  # [H, H*D]
    weights = torch.softmax(linear_of_each(queries, key.to(wide)), dim=-1)  # [B, H, N]
    attended = linear_of_each(weights, value.to(wide).transpose(1, 2))  # of each head all of the value, [B, H, H*D]
    own = attended.unflatten(2, (heads, width)).diagonal(dim1=1, dim2=2)  # [B, D, H]
    return own.transpose(1, 2).flatten(1).to(value.dtype)
