"""Image towers that open_clip takes from timm: SigLIP, PE, EVA and MobileCLIP2-L. Needs no torch for those it names."""

import re
from functools import lru_cache
from typing import Any

from .vision_config import VisionConfig

# Towers of open_clip's names by timm's: those that are served, and by a part those that are no vision transformers.
# None of them is built to know; others are.
_SERVED = re.compile(
    r"vit_(base|large|so400m|giantopt)_patch\d+_siglip_\d+|vit_pe_core_\w+|eva02_(base|large)_patch\d+_clip_\d+"
    r"|eva_giant_patch14_(clip_)?224|vit_large_patch14_clip_224"
)
_NAME = re.compile(r"[\w.]+")
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
    name = model_cfg["vision_cfg"]["timm_model_name"]
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
    if not _NAME.fullmatch(name):  # timm follows others, to folders and to the hub
        return None, f"timm has no image tower {name[:60]!r}"
    if proj not in (None, "", "none"):
        return None, f"its image tower has timm_proj={proj!r}"
    from .timm_module import read_module

    return read_module(name, pool, 0 if proj == "none" else embed_dim)
