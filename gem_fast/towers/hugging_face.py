"""The configuration of a Hugging Face CLIP or MetaCLIP 2, as open_clip's.

Defaults are those of `CLIPConfig`: saved configurations leave them out.
"""

from collections.abc import Iterable
from typing import Any

from ..errors import ModelError, shown

_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "num_channels": 3,
}
_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
_ACTIVATIONS: dict[str, dict[str, Any]] = {
    "quick_gelu": {},
    "gelu": {},
    "gelu_new": {"act_kwargs": {"approximate": "tanh"}},
    "gelu_pytorch_tanh": {"act_kwargs": {"approximate": "tanh"}},
}
KINDS = ("clip", "metaclip_2")
_CLIP_WORDS = 49408  # tokens of CLIP's own tokenizer
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
_META_WORDS = {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos"}


def open_clip_config(config: dict[str, Any], tokenizer: dict[str, Any], label: str) -> dict[str, Any]:
    """open_clip's model config of a `config.json`, given the folder's `tokenizer_config.json`, if any.

    Raises:
        ModelError: it has settings that CLIP's towers here don't have.
    """
    vision, text = (part_of(config, name, known) for name, known in (("vision", _VISION), ("text", _TEXT)))
    activation = vision["hidden_act"]
    if text["hidden_act"] != activation or activation not in tuple(_ACTIVATIONS):
        used = sorted({shown(activation), shown(text["hidden_act"])})
        raise ModelError(f"{label}: its activation is {' and '.join(used)}; one of {', '.join(_ACTIVATIONS)} is needed")
    words, kind = text["vocab_size"], str(tokenizer.get("tokenizer_class") or _TOKENIZERS[0])
    own = config["model_type"] == "clip"
    if own and (words != _CLIP_WORDS or kind not in _TOKENIZERS):
        told = f"{kind[:60]} with {shown(words)} tokens"
        raise ModelError(f"{label}: its texts are split by {told}; {_TOKENIZERS[0]} with {_CLIP_WORDS} is needed")
    if vision["num_channels"] != 3:
        raise ModelError(f"{label}: its images have {shown(vision['num_channels'])} channels, not 3")
    try:
        if vision["hidden_size"] % vision["num_attention_heads"]:
            raise ModelError(
                f"{label}: its {shown(vision['num_attention_heads'])} heads do not share a width of "
                f"{shown(vision['hidden_size'])}"
            )
        return {
            "embed_dim": config.get("projection_dim", 512),
            "quick_gelu": activation == "quick_gelu",
            "vision_cfg": {
                "image_size": vision["image_size"],
                "patch_size": vision["patch_size"],
                "head_width": vision["hidden_size"] // vision["num_attention_heads"],
                **tower_settings(vision),
            },
            "text_cfg": {
                "context_length": text["max_position_embeddings"],
                "vocab_size": words,
                "heads": text["num_attention_heads"],
                **tower_settings(text),
                **({} if own else _META_WORDS | {"eos_id": text["eos_token_id"]}),
            },
        }
    except (TypeError, ArithmeticError) as error:
        raise ModelError(f"{label}: its config.json has sizes that are no numbers") from error


def part_of(config: dict[str, Any], name: str, known: dict[str, Any]) -> dict[str, Any]:
    """A tower's settings; old files have all of them again under another key, which is believed, defaults included."""
    given = [part for key in (f"{name}_config_dict", f"{name}_config") if isinstance(part := config.get(key), dict)]
    told = given[0] if given else {}
    return known | {setting: told[setting] for setting in known if told.get(setting) is not None}


def check_activation(label: str, told: Any, known: Iterable[str]) -> None:
    """ModelError unless what a config has for an activation, which may be anything, is one of these names."""
    if told not in tuple(known):
        raise ModelError(f"{label}: its activation is {shown(told)}, not one of {', '.join(known)}")


def tower_settings(part: dict[str, Any]) -> dict[str, Any]:
    """What both towers have, as open_clip names it; quick GELU is told of the whole model there."""
    width = part["hidden_size"]
    return {
        "width": width,
        "layers": part["num_hidden_layers"],
        "mlp_ratio": (part["intermediate_size"] + 0.5) / width,  # open_clip rounds the product down
        "norm_kwargs": {"eps": part["layer_norm_eps"]},
        **_ACTIVATIONS[part["hidden_act"]],
    }
