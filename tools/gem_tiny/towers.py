"""The two towers of an open_clip CLIP as training runs them: any square grid, no padding tokens, few token rows."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captions import CONTEXT, VOCABULARY

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 7, "width": 192, "head_width": 64, "patch_size": 8},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 128, "heads": 2, "layers": 3},
}
MEAN, STD = 0.5, 0.25


class Towers(nn.Module):
    """An open_clip CLIP whose token table is cut to `rows`, the ids [R] that the captions use."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.clip = open_clip.CLIP(**MODEL_CFG)
        self.clip.token_embedding = nn.Embedding(len(rows), MODEL_CFG["text_cfg"]["width"])
        nn.init.normal_(self.clip.token_embedding.weight, std=0.02)
        self.index: Tensor
        index = torch.zeros(VOCABULARY, dtype=torch.long)
        index[rows] = torch.arange(len(rows))
        self.register_buffer("index", index, persistent=False)

    def image(self, images: Tensor) -> Tensor:
        """Embeddings [B, 128] of images [B, 3, S, S] in 0..1."""
        visual = self.clip.visual
        x = visual.conv1((images - MEAN) / STD).flatten(2).mT
        cls = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([cls, x], 1) + resample(visual.positional_embedding, images.shape[-1] // 8)
        x = visual.transformer(visual.ln_pre(x))
        return F.normalize((visual.ln_post(x[:, 0]) @ visual.proj).float(), dim=-1)

    def text(self, tokens: Tensor) -> Tensor:
        """Embeddings [B, 128] of token ids [B, 20]."""
        clip = self.clip
        end = tokens.argmax(-1)
        length = int(end.max()) + 1
        x = clip.token_embedding(self.index[tokens[:, :length]]) + clip.positional_embedding[:length]
        x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length].to(torch.get_autocast_dtype("cpu")))
        x = clip.ln_final(x)[torch.arange(len(x)), end] @ clip.text_projection
        return F.normalize(x.float(), dim=-1)


def resample(embedding: Tensor, side: int) -> Tensor:
    """Position embedding [1 + n * n, C] for a grid of side x side, bicubic with antialias."""
    native = int((len(embedding) - 1) ** 0.5)
    if native == side:
        return embedding
    grid = embedding[1:].mT.view(1, -1, native, native)
    grid = F.interpolate(grid, (side, side), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([embedding[:1], grid.flatten(2)[0].mT])
