"""Rotary positions of EVA02 and PE: q and k of a patch are turned by angles of its row and its column."""

import torch
from torch import Tensor

from .vision_config import VisionConfig


def rotation_of(config: "VisionConfig", h: int, w: int, like: Tensor) -> Tensor | None:
    """Cosines and sines `[2, N, 1, 1, D]` of the angles of each token, none for the class token; None without rotary.

    They are float32 or wider, on the device of `like`.
    """
    rotary, width = config.rotary, config.width // config.heads
    if rotary is None:
        return None
    wide = torch.promote_types(like.dtype, torch.float32)
    bands = rotary.temperature ** -(torch.arange(width // 4, device=like.device, dtype=wide) / (width // 4))
    axes = []
    for axis, length in enumerate((h, w)):
        at = torch.arange(length, device=like.device, dtype=wide) + rotary.offset
        axes.append((at if rotary.reference is None else at / length * rotary.reference[axis])[:, None] * bands)
    rows, columns = axes[0][:, None].expand(h, w, -1), axes[1][None].expand(h, w, -1)
    order = (columns, rows) if rotary.columns_first else (rows, columns)
    angles = torch.cat(order, dim=-1).flatten(0, 1).repeat_interleave(2, dim=-1)  # [h*w, D]
    angles = torch.cat([angles.new_zeros(config.first_patch, width), angles])
    return torch.stack([angles.cos(), angles.sin()])[:, :, None, None]


def rotate(qkv: Tensor, rotation: Tensor | None) -> Tensor:
    """Projections [B, N, 3, H, D] with q and k turned, as a new tensor; themselves where there is no rotation."""
    if rotation is None:
        return qkv
    cosine, sine = rotation
    both = qkv[:, :, :2]
    across = torch.stack([-both[..., 1::2], both[..., ::2]], dim=-1).flatten(-2)
    return torch.cat([(both * cosine + across * sine).to(qkv.dtype), qkv[:, :, 2:]], dim=2)
