"""From open_clip's config and state dict of a vision tower to packed weights of our own forward."""

from typing import Any

import torch
from torch import Tensor

from ..method import Method
from ..options import GemOptions
from .vit import GemVisionTransformer, VisionConfig

# Settings of open_clip's vision towers that change the forward, with the value that our forward computes.
_REQUIRED: dict[str, Any] = {
    "timm_model_name": None,
    "attentional_pool": False,
    "pool_type": "tok",
    "final_ln_after_pool": False,
    "pos_embed_type": "learnable",
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
_TOP = {
    "conv1.weight": "patch_embedding.weight",
    "class_embedding": "class_embedding",
    "positional_embedding": "position_embedding",
    "ln_pre.weight": "ln_pre.weight",
    "ln_pre.bias": "ln_pre.bias",
    "ln_post.weight": "ln_post.weight",
    "ln_post.bias": "ln_post.bias",
}
_BLOCK = {
    "ln_1": "ln_1",
    "attn.in_proj_": "qkv",
    "attn.out_proj": "out",
    "ln_2": "ln_2",
    "mlp.c_fc": "mlp_in",
    "mlp.c_proj": "mlp_out",
}


def why_unsupported(model_cfg: dict[str, Any]) -> str | None:
    """Why a model of open_clip's config can't be served, in a few words, or None if it can."""
    vision = model_cfg["vision_cfg"]
    for setting, required in _REQUIRED.items():
        if vision.get(setting, required) not in (required, None):
            return f"its vision tower has {setting}={vision[setting]!r}"
    if isinstance(vision.get("layers", 12), list):
        return "its vision tower is a ResNet"
    if "multimodal_cfg" in model_cfg:
        return "it is a CoCa model"
    if model_cfg.get("custom_text"):
        return "its text tower is a custom one"
    text = model_cfg.get("text_cfg", {})
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        return "its text tower needs Hugging Face transformers"
    return None


def vision_config(model_cfg: dict[str, Any]) -> VisionConfig:
    """The shape of the vision tower of an open_clip model config."""
    vision = model_cfg["vision_cfg"]
    width, patch = vision.get("width", 768), vision.get("patch_size", 16)
    size = vision.get("image_size", 224)
    height_width = (size, size) if isinstance(size, int) else tuple(size)
    approximate = (vision.get("act_kwargs") or {}).get("approximate", "none")
    activation = "gelu_tanh" if approximate == "tanh" else "gelu"
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
    )


def pack_vision(
    state: dict[str, Tensor], config: VisionConfig, method: Method | GemOptions, backend: str | None = None
) -> GemVisionTransformer:
    """Build the forward from an open_clip vision state dict (`visual.` stripped), LayerScale folded in.

    Raises:
        ValueError: the state dict has entries that this forward would ignore, or lacks some.
    """
    left = dict(state)
    packed: dict[str, Tensor] = {}

    def take(source: str, gamma: Tensor | None = None) -> Tensor:
        if source not in left:
            raise ValueError(f"the vision weights lack {source!r}; they are not those of a supported CLIP ViT")
        value = left.pop(source).detach()
        return value if gamma is None else value * gamma.to(value.dtype).view(-1, *[1] * (value.ndim - 1))

    for source, target in _TOP.items():
        if config.pre_norm or not source.startswith("ln_pre"):
            packed[target] = take(source)
    packed["projection.weight"] = take("proj").T
    for i in range(config.layers):
        block = f"transformer.resblocks.{i}"
        scales = {
            "out": left.pop(f"{block}.ls_1.gamma", None),
            "mlp_out": left.pop(f"{block}.ls_2.gamma", None),
        }
        for source, target in _BLOCK.items():
            for kind in ("weight", "bias"):
                name = f"{block}.{source}{kind}" if source.endswith("_") else f"{block}.{source}.{kind}"
                packed[f"blocks.{i}.{target}.{kind}"] = take(name, scales.get(target))
    if left:
        raise ValueError(f"the vision weights have entries that GEM's forward does not know: {sorted(left)[:5]}")
    with torch.device("meta"):
        vision = GemVisionTransformer(config, method, backend)
    vision.load_state_dict({name: value.contiguous() for name, value in packed.items()}, assign=True)
    return vision.requires_grad_(False).eval()
