"""The head of SigLIP and PE, timm's `AttentionPoolLatent`: a learnt query attends over all tokens, an MLP follows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layer import Linear

POOLINGS = ("head", "value")  # what a patch's embedding can be


class AttentionPool(nn.Module):
    """Attention pooling. The query, which is the same for all images, is projected when weights are packed."""

    def __init__(self, width: int, heads: int, mlp_width: int, activation: str, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(width))
        self.key = Linear(width, width)
        self.value = Linear(width, width)
        self.out = Linear(width, width)
        self.norm = nn.LayerNorm(width, eps)
        self.mlp_in = Linear(width, mlp_width, activation=activation)
        self.mlp_out = Linear(mlp_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, C] after the last LayerNorm, to what is one for the image, [B, C]."""
        key, value = (each(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (self.key, self.value))
        query = self.query.view(1, self.heads, 1, -1).expand(len(x), -1, -1, -1)
        pooled = F.scaled_dot_product_attention(query, key, value)  # [B, H, 1, D]
        return self.finish(self.out(pooled.flatten(1)))

    def of_each(self, x: Tensor, pooling: str) -> Tensor:
        """Tokens [B, N, C] to [B, N, C]: as if each were an image's only one, or what of it the attention adds up."""
        alone = self.out(self.value(x))
        return alone if pooling == "value" else self.finish(alone)

    def finish(self, pooled: Tensor) -> Tensor:
        return pooled + self.mlp_out(self.mlp_in(self.norm(pooled)))
