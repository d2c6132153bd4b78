"""BLIP's two published sizes, and configurations of transformers. Needs no torch."""

from typing import Any

from ..errors import ModelError, shown
from .hugging_face import check_activation
from .text_config import BertConfig
from .vision_config import VisionConfig

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
        check_activation(label, part["hidden_act"], _ACTIVATIONS)
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
    padding = text["pad_token_id"]
    if type(padding) is not int or not 0 <= padding < text["vocab_size"]:
        raise ModelError(f"{label}: its padding is token {shown(padding)}, which its vocabulary does not have")
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
