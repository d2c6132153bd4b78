"""Heads of a learnt query that attends over all tokens: SigLIP's and PE's, with an MLP behind it, and CoCa's.

CoCa's has 256 queries, of which the first one's result is the image's embedding: the others are for captions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        key, value = (each(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (self.key, self.value))
        query = self.query.view(1, self.heads, 1, -1).expand(len(x), -1, -1, -1)
        pooled = F.scaled_dot_product_attention(query, key, value)  # [B, H, 1, D]
        return self.finish(self.out(pooled.flatten(1)))

    def of_each(self, x: Tensor, pooling: str) -> Tensor:
        """Tokens [B, N, C] to [B, N, inner]: as if each were an image's only one, or what the attention adds up."""
        alone = self.out(self.value(x))
        return alone if pooling == "value" else self.finish(alone)

    def finish(self, pooled: Tensor) -> Tensor:
        normed = self.norm(pooled)
        return pooled + self.mlp_out(self.mlp_in(normed)) if self.has_mlp else normed
