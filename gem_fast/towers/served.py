"""Which configs of models are served, and the shape of their image towers. Needs no torch."""

from typing import Any

from ..errors import shown
from .blip_config import BLIP, blip_vision
from .siglip_config import SIGLIP, siglip_vision
from .timm_trunk import is_trunk, trunk_config, why_not_trunk
from .vision_config import VisionConfig

# Settings of open_clip's towers that change the forward, with the values that ours computes.
_VISION: dict[str, tuple[Any, ...]] = {
    "attentional_pool": (False, True),
    "pool_type": ("tok", "avg"),
    "pos_embed_type": ("learnable",),
    "block_type": (None,),
    "qk_norm": (False,),
    "scaled_cosine_attn": (False,),
    "scale_heads": (False,),
    "scale_attn_inner": (False,),
    "scale_attn": (False,),
    "scale_fc": (False,),
}
_TEXT: dict[str, tuple[Any, ...]] = {
    "embed_cls": (False, True),
    "use_pad_mask": (False,),
    "pool_type": ("argmax", "last", "first", "eos"),
    "proj_type": ("linear", "none"),
    **{name: _VISION[name] for name in ("block_type", "qk_norm", "scaled_cosine_attn", "scale_heads")},
    **{name: _VISION[name] for name in ("scale_attn_inner", "scale_attn", "scale_fc")},
}


def why_unsupported(model_cfg: dict[str, Any]) -> str | None:
    """Why a model of open_clip's config can't be served, in a few words, or None if it can."""
    if BLIP in model_cfg or SIGLIP in model_cfg:
        return None
    vision, text = model_cfg["vision_cfg"], model_cfg.get("text_cfg") or {}
    if isinstance(vision.get("layers", 12), list):
        return "its vision tower is a ResNet"
    if is_trunk(vision):
        if reason := why_not_trunk(model_cfg):
            return reason
    elif reason := _other_setting("vision", vision, _VISION):
        return reason
    if vision.get("attentional_pool") and vision.get("pool_type") == "avg":
        return "its image embedding is the mean of what all queries of its head gather, and none of a patch"
    return None if text.get("hf_model_name") else _other_setting("text", text, _TEXT)


def _other_setting(tower: str, config: dict[str, Any], known: dict[str, tuple[Any, ...]]) -> str | None:
    for setting, values in known.items():
        if config.get(setting) not in (None, *values):
            return f"its {tower} tower has {setting}={shown(config[setting])}"
    return None


def vision_config(model_cfg: dict[str, Any]) -> VisionConfig:
    """The shape of the vision tower of an open_clip model config."""
    if BLIP in model_cfg:
        return blip_vision(model_cfg)
    if SIGLIP in model_cfg:
        return siglip_vision(model_cfg)
    vision = model_cfg["vision_cfg"]
    if is_trunk(vision):
        return trunk_config(model_cfg)
    width, patch = vision.get("width", 768), vision.get("patch_size", 16)
    size = vision.get("image_size", 224)
    height_width = (size, size) if isinstance(size, int) else tuple(size)
    approximate = (vision.get("act_kwargs") or {}).get("approximate", "none")
    activation = "gelu_tanh" if approximate == "tanh" else "gelu"
    pool = {"avg": "mean"}.get(vision.get("pool_type", "tok"), "class")
    attends = bool(vision.get("attentional_pool"))
    return VisionConfig(
        width=width,
        layers=vision.get("layers", 12),
        heads=width // vision.get("head_width", 64),
        mlp_width=int(width * vision.get("mlp_ratio", 4.0)),
        patch_size=patch,
        grid=(height_width[0] // patch, height_width[1] // patch),
        embed_dim=model_cfg["embed_dim"],
        activation="quick_gelu" if model_cfg.get("quick_gelu") else activation,
        norm_eps=(vision.get("norm_kwargs") or {}).get("eps", 1e-5),
        pre_norm=not vision.get("no_ln_pre", False),
        pool="attention" if attends else pool,
        pool_width=model_cfg["embed_dim"] if attends else 0,
        pool_heads=vision.get("attn_pooler_heads", 8) if attends else 0,
        norm_after_mean=bool(vision.get("final_ln_after_pool", False)),
    )
