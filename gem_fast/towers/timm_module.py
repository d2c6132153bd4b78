"""The shape of an image tower, read off timm's own module."""

from typing import Any

import torch
from torch import nn

from .vision_config import Rotary, VisionConfig


def read_module(name: str, pool: str, classes: int) -> tuple[VisionConfig | None, str | None]:
    """The shape of timm's model with so many outputs, 0 for none; or why there is none that our forward computes."""
    from timm import create_model

    try:
        with torch.device("meta"):
            trunk: Any = create_model(name, num_classes=classes, global_pool=pool)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        return None, f"timm has no image tower {name} that fits: {str(error)[:100]}"
    reason = _why_other(trunk)
    return (None, reason) if reason else (_config_of(trunk, classes or trunk.embed_dim), None)


def _why_other(trunk: Any) -> str | None:
    """In what timm's module is not a vision transformer as ours, or None."""
    kind = type(trunk).__name__
    if kind not in ("VisionTransformer", "Eva"):
        return f"its image tower is timm's {kind}"
    blocks = {type(block).__name__ for block in trunk.blocks}
    attention, rope = trunk.blocks[0].attn, getattr(trunk, "rope", None)
    plain_rope = rope is None or (type(rope).__name__ == "RotaryEmbeddingCat" and rope.grid_type == "index")
    faults = {
        f"blocks of the kind {', '.join(sorted(blocks))}": not blocks <= {"Block", "EvaBlock"},
        f"{trunk.num_prefix_tokens} tokens before the patches": trunk.num_prefix_tokens > 1,
        "a class token without a position": trunk.no_embed_class and trunk.num_prefix_tokens > 0,
        "no position embedding": trunk.pos_embed is None,
        "normalised q and k": not isinstance(attention.q_norm, nn.Identity),
        "gated attention": getattr(attention, "gate", None) is not None,
        "another kind of rotary positions": not plain_rope or bool(getattr(rope, "rotate_half", False)),
        "a LayerNorm behind its pooling": not isinstance(trunk.fc_norm, nn.Identity),
        f"{trunk.global_pool} pooling": trunk.global_pool not in ("token", "map"),
        "no LayerNorm": not isinstance(trunk.blocks[0].norm1, nn.LayerNorm),
    }
    told = [fault for fault, present in faults.items() if present]
    return f"its image tower has {' and '.join(told)}" if told else None


def _config_of(trunk: Any, embed_dim: int) -> VisionConfig:
    block, patch = trunk.blocks[0], trunk.patch_embed
    gated, pool, rope = hasattr(block.mlp, "fc1_g"), trunk.attn_pool, getattr(trunk, "rope", None)
    head = isinstance(trunk.head, nn.Linear)
    return VisionConfig(
        width=trunk.embed_dim,
        layers=len(trunk.blocks),
        heads=block.attn.num_heads,
        mlp_width=block.mlp.fc2.in_features,
        patch_size=patch.patch_size[0],
        grid=tuple(patch.grid_size),
        embed_dim=embed_dim if head else trunk.embed_dim,
        activation=_activation(block.mlp.act),
        norm_eps=block.norm1.eps,
        pre_norm=isinstance(trunk.norm_pre, nn.LayerNorm),
        class_token=trunk.cls_token is not None,
        patch_bias=patch.proj.bias is not None,
        projection_bias=head and trunk.head.bias is not None,
        projection=head,
        pool="class" if pool is None else "attention",
        pool_heads=0 if pool is None else pool.num_heads,
        pool_mlp_width=0 if pool is None else pool.mlp.fc2.in_features,
        pool_activation="gelu" if pool is None else _activation(pool.mlp.act),
        rotary=None if rope is None else _rotary(rope),
        attention_norm=isinstance(getattr(block.attn, "norm", None), nn.LayerNorm),
        gated=gated,
    )


def _activation(module: nn.Module) -> str:
    """Of an MLP; SiLU, which timm knows for gated ones alone, is what our gate computes."""
    return (
        "gelu_tanh" if getattr(module, "approximate", "none") == "tanh" or "Tanh" in type(module).__name__ else "gelu"
    )


def _rotary(rope: Any) -> Rotary:
    reference = rope.ref_feat_shape
    return Rotary(
        reference=None if reference is None else (int(reference[0]), int(reference[1])),
        offset=float(rope.grid_offset),
        columns_first=rope.grid_indexing == "xy",
        temperature=float(rope.temperature),
    )
