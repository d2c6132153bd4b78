"""The configuration of a Hugging Face CLIP, as open_clip's.

Defaults are those of `CLIPConfig`: saved configurations leave them out.
"""

from typing import Any

from ..errors import ModelError

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
}
_ACTIVATIONS: dict[str, dict[str, Any]] = {
    "quick_gelu": {},
    "gelu": {},
    "gelu_new": {"act_kwargs": {"approximate": "tanh"}},
    "gelu_pytorch_tanh": {"act_kwargs": {"approximate": "tanh"}},
}
_CLIP_WORDS = 49408  # tokens of CLIP's own tokenizer
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")


def open_clip_config(config: dict[str, Any], tokenizer: dict[str, Any], label: str) -> dict[str, Any]:
    """open_clip's model config of a `config.json`, given the folder's `tokenizer_config.json`, if any.

    Raises:
        ModelError: it is another kind of model, or one with settings that CLIP's towers here don't have.
    """
    if config.get("model_type") != "clip":
        raise ModelError(f"{label}: its config.json is of a {config.get('model_type')!r} model, not of a CLIP")
    vision, text = (_part(config, name, known) for name, known in (("vision", _VISION), ("text", _TEXT)))
    activation = vision["hidden_act"]
    if text["hidden_act"] != activation or activation not in _ACTIVATIONS:
        used = sorted({str(activation), str(text["hidden_act"])})
        raise ModelError(f"{label}: its activation is {' and '.join(used)}; one of {', '.join(_ACTIVATIONS)} is needed")
    words, kind = text["vocab_size"], str(tokenizer.get("tokenizer_class", "CLIPTokenizer"))
    if words != _CLIP_WORDS or kind not in _TOKENIZERS:
        raise ModelError(f"{label}: its texts are split by {kind} with {words} tokens; CLIP's own has {_CLIP_WORDS}")
    if vision["num_channels"] != 3:
        raise ModelError(f"{label}: its images have {vision['num_channels']} channels, not 3")
    try:
        return {
            "embed_dim": config.get("projection_dim", 512),
            "quick_gelu": activation == "quick_gelu",
            "vision_cfg": {
                "image_size": vision["image_size"],
                "patch_size": vision["patch_size"],
                "head_width": vision["hidden_size"] // vision["num_attention_heads"],
                **_shared(vision),
            },
            "text_cfg": {
                "context_length": text["max_position_embeddings"],
                "vocab_size": words,
                "heads": text["num_attention_heads"],
                **_shared(text),
            },
        }
    except (TypeError, ZeroDivisionError) as error:
        raise ModelError(f"{label}: its config.json has sizes that are no numbers") from error


def _part(config: dict[str, Any], name: str, known: dict[str, Any]) -> dict[str, Any]:
    """A tower's settings; old files repeat some, with the last word, under another key."""
    settings = dict(known)
    for key in (f"{name}_config", f"{name}_config_dict"):
        given = config.get(key)
        if isinstance(given, dict):
            settings |= {setting: given[setting] for setting in known if given.get(setting) is not None}
    return settings


def _shared(part: dict[str, Any]) -> dict[str, Any]:
    width = part["hidden_size"]
    return {
        "width": width,
        "layers": part["num_hidden_layers"],
        "mlp_ratio": (part["intermediate_size"] + 0.5) / width,  # open_clip rounds the product down
        "norm_kwargs": {"eps": part["layer_norm_eps"]},
        **_ACTIVATIONS[part["hidden_act"]],
    }
