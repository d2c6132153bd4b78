"""Image towers that open_clip takes from timm: SigLIP, PE, EVA and MobileCLIP2-L, read off timm's own module."""

import re
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from .rotary import Rotary
from .vision_config import VisionConfig

# Towers of open_clip's names by timm's: those that are served, and by a part those that are no vision transformers.
# None of them is built to know; others are.
_SERVED = re.compile(
    r"vit_(base|large|so400m|giantopt)_patch\d+_siglip_\d+|vit_pe_core_\w+|eva02_(base|large)_patch\d+_clip_\d+"
    r"|eva_giant_patch14_(clip_)?224|vit_large_patch14_clip_224"
)
_OTHERS = {
    "convnext": "a ConvNeXt",
    "fastvit": "a FastViT",
    "vitamin": "a ViTamin, of convolutions and attention",
    "resnet": "a ResNet",
    "swin": "a Swin transformer, with windows of patches",
    "_mci": "a ViT behind a stem of convolutions",
    "relpos": "a ViT with relative positions",
    "enormous": "EVA02-E, whose blocks normalise what attention gives, so GEM's equations have no x to start from",
}


def is_trunk(vision_cfg: dict[str, Any]) -> bool:
    return bool(vision_cfg.get("timm_model_name"))


def why_not_trunk(model_cfg: dict[str, Any]) -> str | None:
    """Why the tower of such a config can't be served, or None."""
    name = str(model_cfg["vision_cfg"]["timm_model_name"])
    for part, words in _OTHERS.items():
        if part in name:
            return f"its image tower is {words}"
    _, pool, proj, _ = _key(model_cfg)
    if _SERVED.fullmatch(name) and pool in ("token", "map") and proj in (None, "none"):
        return None
    return _read(*_key(model_cfg))[1]


def trunk_config(model_cfg: dict[str, Any]) -> VisionConfig:
    """The shape of a supported tower."""
    config = _read(*_key(model_cfg))[0]
    assert config is not None
    return config


def _key(model_cfg: dict[str, Any]) -> tuple[Any, ...]:
    vision = model_cfg["vision_cfg"]
    pool, proj = vision.get("timm_pool", "avg"), vision.get("timm_proj", "linear")
    return vision["timm_model_name"], pool, proj, model_cfg["embed_dim"]


@lru_cache(maxsize=128)
def _read(name: str, pool: str, proj: str | None, embed_dim: int) -> tuple[VisionConfig | None, str | None]:
    """The shape, or why there is none that our forward computes."""
    from timm import create_model

    if proj not in (None, "", "none"):
        return None, f"its image tower has timm_proj={proj!r}"
    try:
        with torch.device("meta"):
            trunk: Any = create_model(name, num_classes=0 if proj == "none" else embed_dim, global_pool=pool)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        return None, f"timm has no image tower {name} that fits: {str(error)[:100]}"
    reason = _why_other(trunk)
    return (None, reason) if reason else (_config_of(trunk, embed_dim), None)


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
