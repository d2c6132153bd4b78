"""BLIP: its two published sizes, configurations of transformers, and both kinds of names.

Salesforce's checkpoints and transformers' `BlipForImageTextRetrieval` hold the same weights. Image-text matching by
cosines (ITC) is what is served; the towers for matching by cross attention and for captions are left out.
"""

import re
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from .bert import BertConfig, BertText, bert_shapes, pack_bert
from .naming import TowerWeights
from .vision_config import VisionConfig
from .weights_file import Weights

BLIP = "blip"  # the key of a model config that is BLIP's
CONTEXT = 35  # tokens of a text in Salesforce's code
SCALE = 1 / 0.07  # one over the temperature that training begins with, where a checkpoint has none
_SIZES = {"blip-base": (768, 12, 12), "blip-large": (1024, 24, 16)}  # width, layers, heads of the image tower
# Defaults of transformers' configurations, which saved ones leave out; Salesforce's own differ.
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 384,
    "patch_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
_TEXT = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
_IGNORED = re.compile(
    r"(itm_head|text_decoder)\..*|(visual_encoder|text_encoder|vision_proj|text_proj)_m\..*|\w*_queue|queue_ptr|ptr_queue"
    r"|temp|logit_scale|.*\.position_ids|text_encoder\.(cls|pooler)\..*|.*\.crossattention\..*"
)
_RENAMED = (
    (re.compile(r"vision_model\.embeddings\.class_embedding"), "trunk.cls_token"),
    (re.compile(r"vision_model\.embeddings\.position_embedding"), "trunk.pos_embed"),
    (re.compile(r"vision_model\.embeddings\.patch_embedding\.(.*)"), r"trunk.patch_embed.proj.\1"),
    (re.compile(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv\.(.*)"), r"trunk.blocks.\1.attn.qkv.\2"),
    (re.compile(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection\.(.*)"), r"trunk.blocks.\1.attn.proj.\2"),
    (re.compile(r"vision_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.(.*)"), r"trunk.blocks.\1.norm\2.\3"),
    (re.compile(r"vision_model\.encoder\.layers\.(\d+)\.mlp\.(.*)"), r"trunk.blocks.\1.mlp.\2"),
    (re.compile(r"vision_model\.post_layernorm\.(.*)"), r"trunk.norm.\1"),
    (re.compile(r"visual_encoder\.(.*)"), r"trunk.\1"),
    (re.compile(r"vision_proj\.(.*)"), r"trunk.head.\1"),
)


def named_config(name: str) -> dict[str, Any]:
    """The config of a published size, as `blip_config` makes them."""
    width, layers, heads = _SIZES[name]
    vision = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "layer_norm_eps": 1e-6}
    vision["intermediate_size"] = 4 * width
    return blip_config({"vision_config": vision, "text_config": {"num_attention_heads": 12}}, name)


def blip_names() -> list[str]:
    return list(_SIZES)


def blip_config(config: dict[str, Any], label: str) -> dict[str, Any]:
    """The model config of transformers' `config.json` of a BLIP.

    Raises:
        ModelError: it has settings that BLIP's towers here don't have.
    """
    parts: list[dict[str, Any]] = []
    known: dict[str, Any]
    for key, known in (("vision_config", _VISION), ("text_config", _TEXT)):
        given = config.get(key)
        given = given if isinstance(given, dict) else {}
        parts.append(known | {name: given[name] for name in known if given.get(name) is not None})
    vision, text = parts
    for part in parts:
        if part["hidden_act"] not in _ACTIVATIONS:
            raise ModelError(f"{label}: its activation is {part['hidden_act']!r}, not one of {', '.join(_ACTIVATIONS)}")
    size = config.get("image_text_hidden_size", 256)
    numbers = [size, *(value for part in parts for name, value in part.items() if name not in _NO_SIZES)]
    if any(type(number) is not int or not 0 < number < 1 << 24 for number in numbers):
        raise ModelError(f"{label}: its config.json has sizes that are no numbers")
    for part in parts:
        epsilon = part["layer_norm_eps"]
        if part["num_hidden_layers"] > 1 << 10:
            raise ModelError(f"{label}: its config.json asks for {part['num_hidden_layers']:,} layers")
        if part["hidden_size"] % part["num_attention_heads"] or not isinstance(epsilon, float) or not 0 < epsilon < 1:
            raise ModelError(f"{label}: its config.json has heads or a layer_norm_eps that don't fit")
    if not 0 <= text["pad_token_id"] < text["vocab_size"]:
        raise ModelError(f"{label}: its padding is token {text['pad_token_id']}, which its vocabulary does not have")
    return {
        BLIP: {"vision": vision, "text": text, "embed_dim": size},
        "vision_cfg": {"image_size": vision["image_size"]},
    }


_NO_SIZES = ("hidden_act", "layer_norm_eps", "pad_token_id")


def blip_vision(model_cfg: dict[str, Any]) -> VisionConfig:
    """The shape of the image tower."""
    vision = model_cfg[BLIP]["vision"]
    side = vision["image_size"] // vision["patch_size"]
    return VisionConfig(
        width=vision["hidden_size"],
        layers=vision["num_hidden_layers"],
        heads=vision["num_attention_heads"],
        mlp_width=vision["intermediate_size"],
        patch_size=vision["patch_size"],
        grid=(side, side),
        embed_dim=model_cfg[BLIP]["embed_dim"],
        activation=_ACTIVATIONS[vision["hidden_act"]],
        norm_eps=vision["layer_norm_eps"],
        pre_norm=False,
        patch_bias=True,
        projection_bias=True,
        resampling="plain",
    )


def blip_text(model_cfg: dict[str, Any]) -> BertConfig:
    """The shape of the text tower, its projection with it."""
    text = model_cfg[BLIP]["text"]
    return BertConfig(
        width=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        mlp_width=text["intermediate_size"],
        vocabulary=text["vocab_size"],
        positions=text["max_position_embeddings"],
        context=min(CONTEXT, text["max_position_embeddings"]),
        padding=text["pad_token_id"],
        projection=(model_cfg[BLIP]["embed_dim"],),
        projection_bias=True,
        activation=_ACTIVATIONS[text["hidden_act"]],
        norm_eps=text["layer_norm_eps"],
    )


def blip_shapes(model_cfg: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights that are needed, the image tower's in timm's names."""
    vision, text = blip_vision(model_cfg), blip_text(model_cfg)
    C, M, E, patch = vision.width, vision.mlp_width, vision.embed_dim, vision.patch_size
    layers = {"trunk.patch_embed.proj": (C, 3, patch, patch), "trunk.norm": (C,), "trunk.head": (E, C)}
    for i in range(vision.layers):
        block = f"trunk.blocks.{i}"
        layers |= {f"{block}.norm1": (C,), f"{block}.attn.qkv": (3 * C, C), f"{block}.attn.proj": (C, C)}
        layers |= {f"{block}.norm2": (C,), f"{block}.mlp.fc1": (M, C), f"{block}.mlp.fc2": (C, M)}
    layers["text_proj"] = (E, text.width)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes |= {"trunk.cls_token": (1, 1, C), "trunk.pos_embed": (1, 1 + vision.grid[0] * vision.grid[1], C)}
    return shapes | {f"text_encoder.{name}": shape for name, shape in bert_shapes(text).items()}


def blip_state(weights: Weights) -> dict[str, Tensor]:
    """The weights under the names of `blip_shapes`, without what is for matching, captions and training."""
    state = {}
    for name, value in weights.state.items():
        if _IGNORED.fullmatch(name):
            continue
        for pattern, target in _RENAMED:
            if match := pattern.fullmatch(name):
                name = match.expand(target)
                break
        state[name] = value
    return state


def is_blip(names: Any) -> bool:
    """Whether weights with these names are BLIP's."""
    return "text_proj.weight" in names and "vision_proj.weight" in names


def blip_scale(weights: Weights | None) -> float:
    """What cosines are multiplied with: one over the temperature of a checkpoint, within the bounds of its training."""
    temperature = None if weights is None else weights.state.get("temp")
    if temperature is None or temperature.numel() != 1:
        return SCALE
    return 1 / min(max(float(temperature), 0.001), 0.5)


def pack_blip_text(state: dict[str, Tensor], model_cfg: dict[str, Any]) -> BertText:
    """The text tower of weights in the names of `blip_shapes`, which are taken out of the state."""
    own = {name.removeprefix("text_encoder."): state.pop(name) for name in list(state) if name.startswith("text_")}
    return pack_bert(TowerWeights(own, "text"), blip_text(model_cfg), ("text_proj",))


def random_blip(model_cfg: dict[str, Any]) -> dict[str, Tensor]:
    """Untrained weights: normal ones in matrices, as BERT's, and norms that change nothing."""
    return {
        name: torch.zeros(shape)
        if name.endswith("bias")
        else torch.ones(shape)
        if len(shape) == 1
        else torch.randn(shape) * 0.02
        for name, shape in blip_shapes(model_cfg).items()
    }
