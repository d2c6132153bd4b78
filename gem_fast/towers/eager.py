"""GEM the eager way, over open_clip's own modules: what the engine is compared with, for correctness and for speed.

Attention is materialised, the projections go one after the other, and branches that only the original path needs are
computed as well. In float64 it is the evaluation of the paper's equations that the tests hold the engine against; it
shares no code with the engine.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def eager_gem(
    visual: Any,
    pixels: Tensor,
    *,
    gem_blocks: int = 6,
    iterations: int = 1,
    inverse_temperature: float | None = None,
    projections: str = "qkv",
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """GEM's and the original path's tokens, L2-normalised: two of `[B, 1 + h*w, E]`.

    Args:
        visual: an open_clip `VisionTransformer`, in the precision to compute in.
        pixels: `[B, 3, H, W]`, sides multiples of the patch.
        gem_blocks, iterations, inverse_temperature, projections, normalize: as in `gem_fast.GemOptions`.
    """
    x = visual.conv1(pixels.to(visual.conv1.weight.dtype))
    h, w = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
    x = visual.ln_pre(x + positions(visual, h, w))
    blocks = list(visual.transformer.resblocks)
    for block in blocks[:-gem_blocks]:
        x = block(x)
    gem = x
    for block in blocks[-gem_blocks:]:
        y = block.ln_1(x)
        own, original = _attention(block.attn, y, iterations, inverse_temperature, projections, normalize)
        gem = gem + block.ls_1(own)
        x = x + block.ls_1(original)
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    both = [visual.ln_post(tokens) @ visual.proj for tokens in (gem, x)]
    return F.normalize(both[0], dim=-1), F.normalize(both[1], dim=-1)


def _attention(
    attn: Any, y: Tensor, iterations: int, inverse_temperature: float | None, projections: str, normalize: bool
) -> tuple[Tensor, Tensor]:
    B, N, C = y.shape
    H, D = attn.num_heads, C // attn.num_heads
    packed = F.linear(y, attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = packed.reshape(B, N, 3, H, D).permute(2, 0, 3, 1, 4)  # each [B, H, N, D]
    original = torch.softmax((q @ k.transpose(-2, -1)) * D**-0.5, dim=-1) @ v
    if inverse_temperature is None:
        c = torch.norm(y, dim=-1).mean(dim=-1).view(B, 1, 1, 1) / D**0.5  # Eq. 4, inverted
    else:
        c = torch.full((1,), inverse_temperature, dtype=y.dtype, device=y.device)
    outputs = []
    for letter in projections:
        p = {"q": q, "k": k, "v": v}[letter]
        for _ in range(iterations):
            p = F.normalize(p, dim=-1) if normalize else p
            p = torch.softmax((p @ p.transpose(-2, -1)) * c, dim=-1) @ p  # Eq. 5
        p = F.normalize(p, dim=-1) if normalize else p
        outputs.append(torch.softmax((p @ p.transpose(-2, -1)) * c, dim=-1) @ v)  # Eq. 6
    ensemble = sum(outputs[1:], outputs[0]) / len(outputs)  # Eq. 7
    merged = [attn.out_proj(heads.transpose(1, 2).reshape(B, N, C)) for heads in (ensemble, original)]
    return merged[0], merged[1]


def positions(visual: Any, h: int, w: int) -> Tensor:
    """The position embedding `[1 + h*w, C]` for a grid of h×w patches."""
    trained = visual.positional_embedding
    if (h, w) == tuple(visual.grid_size):
        return trained
    grid = trained[1:].reshape(1, *visual.grid_size, -1).permute(0, 3, 1, 2)
    wide = grid if grid.dtype == torch.float64 else grid.float()
    resampled = F.interpolate(wide, size=(h, w), mode="bicubic", antialias=True).to(trained.dtype)
    return torch.cat([trained[:1], resampled[0].flatten(1).T])
