"""Names and shapes of the weights of open_clip's own towers. Needs no torch."""

from typing import Any

from .served import vision_config
from .siglip_config import SIGLIP
from .text_config import TextConfig
from .vision_config import VisionConfig

Shapes = dict[str, tuple[int, ...]]


def vision_shapes(model_cfg: dict[str, Any]) -> Shapes:
    """Of the image tower, that of a Hugging Face SigLIP in the same names, with timm's of its head."""
    config = vision_config(model_cfg)
    C, E, patch, (h, w) = config.width, config.embed_dim, config.patch_size, config.grid
    shapes: Shapes = {"conv1.weight": (C, 3, patch, patch), "positional_embedding": (config.first_patch + h * w, C)}
    if config.patch_bias:
        shapes["conv1.bias"] = (C,)
    if config.class_token:
        shapes["class_embedding"] = (C,)
    if config.pre_norm:
        shapes |= _layer("ln_pre", C)
    if SIGLIP in model_cfg:
        shapes |= _pool_shapes(config)
    shapes |= _layer("ln_post", C)
    if config.projection:
        shapes["proj"] = (C, E)
    scaled = model_cfg["vision_cfg"].get("ls_init_value") is not None
    return shapes | _block_shapes(config.layers, C, config.mlp_width, scaled)


def text_shapes(config: TextConfig) -> Shapes:
    """Of the text tower."""
    C, E = config.width, config.embed_dim
    shapes: Shapes = {"token_embedding.weight": (config.vocabulary, C), "positional_embedding": (config.positions, C)}
    if config.class_token:
        shapes["cls_emb"] = (C,)
    shapes |= _layer("ln_final", C)
    if config.projection:
        shapes |= _layer("text_projection", E, C) if config.projection_bias else {"text_projection": (C, E)}
    return shapes | _block_shapes(config.layers, C, config.mlp_width, config.layer_scale)


def _block_shapes(layers: int, C: int, M: int, scaled: bool) -> Shapes:
    shapes: Shapes = {}
    for i in range(layers):
        block = f"transformer.resblocks.{i}"
        shapes |= _layer(f"{block}.ln_1", C) | _layer(f"{block}.attn.out_proj", C, C) | _layer(f"{block}.ln_2", C)
        shapes |= {f"{block}.attn.in_proj_weight": (3 * C, C), f"{block}.attn.in_proj_bias": (3 * C,)}
        shapes |= _layer(f"{block}.mlp.c_fc", M, C) | _layer(f"{block}.mlp.c_proj", C, M)
        if scaled:
            shapes |= {f"{block}.ls_1.gamma": (C,), f"{block}.ls_2.gamma": (C,)}
    return shapes


def _pool_shapes(config: VisionConfig) -> Shapes:
    C, M = config.width, config.pool_mlp_width
    layers = {"q": (C, C), "kv": (2 * C, C), "proj": (C, C), "norm": (C,), "mlp.fc1": (M, C), "mlp.fc2": (C, M)}
    shapes: Shapes = {"attn_pool.latent": (1, 1, C)}
    for name, shape in layers.items():
        shapes |= _layer(f"attn_pool.{name}", *shape)
    return shapes


def _layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
