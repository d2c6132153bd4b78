"""What configs of open_clip's models may hold: the settings it knows, and sizes of which a model can be made."""

from types import NoneType
from typing import Any

from ..errors import ModelError, shown
from .blip_config import BLIP
from .siglip_config import SIGLIP
from .timm_trunk import is_trunk

_MODEL = {
    *("embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg", "custom_text", "quick_gelu"),
    *("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", "output_dict", SIGLIP),
}
_BOTH = {
    *("width", "layers", "mlp_ratio", "ls_init_value", "pool_type", "output_tokens", "act_kwargs", "norm_kwargs"),
    *("final_ln_after_pool", "block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner"),
    *("scale_attn", "scale_fc"),
}
_VISION = _BOTH | {
    *("head_width", "patch_size", "image_size", "patch_dropout", "attentional_pool", "attn_pooler_queries"),
    *("attn_pooler_heads", "no_ln_pre", "pos_embed_type"),
    *(f"timm_{name}" for name in ("model_name", "model_pretrained", "pool", "proj", "proj_bias", "drop", "drop_path")),
}
_TEXT = _BOTH | {
    *("context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs", "heads", "embed_cls"),
    *("pad_id", "eos_id", "no_causal_mask", "proj_bias", "proj_type", "use_pad_mask"),
    *(f"hf_{name}" for name in ("model_name", "model_pretrained", "proj_type", "pooler_type")),
}
_FLAGS = {
    *(
        "custom_text",
        "quick_gelu",
        "nonscalar_logit_scale",
        "output_dict",
        "output_tokens",
        "final_ln_after_pool",
        "qk_norm",
    ),
    *("scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc", "no_ln_pre", "embed_cls"),
    *("no_causal_mask", "proj_bias", "timm_proj_bias"),
}
_NAMES = {
    *("timm_model_name", "timm_pool", "timm_proj", "hf_model_name", "hf_tokenizer_name", "hf_proj_type"),
    *("hf_pooler_type", "pool_type", "proj_type", "pos_embed_type", "block_type", "tokenizer_mode"),
}
_NUMBERS = ("init_logit_scale", "init_logit_bias")
_MOST_LAYERS = 1 << 10  # more would take for ever to make, even without memory for them
_LARGEST = 1 << 24


def is_own_vision(model_cfg: dict[str, Any]) -> bool:
    """Whether the image tower is open_clip's own transformer, without CoCa's head, or that of a SigLIP's folder."""
    vision = model_cfg["vision_cfg"]
    return not is_trunk(vision) and not vision.get("attentional_pool")


def check_config(name: str, model_cfg: dict[str, Any]) -> None:
    """Raise ModelError, which begins with the name, unless our towers can be made of the config.

    Nothing else reads a config before it is checked here: its values may be anything that JSON has.
    """
    if BLIP in model_cfg or isinstance(model_cfg["vision_cfg"].get("layers"), list):
        return  # checked as it was made; a ResNet, which is refused as one
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    for where, config, known in (("model", model_cfg, _MODEL), ("vision", vision, _VISION), ("text", text, _TEXT)):
        if unknown := ", ".join(str(setting)[:40] for setting in config if setting not in known):
            raise ModelError(f"{name}: its {where} config has settings that are not known here: {unknown[:200]}")
    faults = [*_whole({"embed_dim": model_cfg["embed_dim"]}), *_kind_faults(model_cfg, vision, text)]
    if not is_trunk(vision):
        faults += _vision_faults(vision, SIGLIP in model_cfg) or _tower_faults(vision, 768, model_cfg)
    if vision.get("attentional_pool"):
        usual = {"attn_pooler_queries": 256, "attn_pooler_heads": 8}
        faults += _whole({each: vision.get(each, number) for each, number in usual.items()})
    if text.get("hf_model_name"):
        faults += _whole({"context_length": text.get("context_length", 77)})
    else:
        faults += _text_faults(text) or _tower_faults(text, 512, model_cfg)
    if faults:
        raise ModelError(f"{name}: no model can be made of its config: {'; '.join(faults)}")


def _kind_faults(*configs: dict[str, Any]) -> list[str]:
    """Of settings that are true or false, names, or any numbers."""
    kinds = (
        (_FLAGS, "not true or false", lambda value: isinstance(value, bool)),
        (_NAMES, "not a name", lambda value: isinstance(value, str) and value.isprintable() and len(value) < 1 << 10),
        (_NUMBERS, "not a number", lambda value: _positive(value, -_LARGEST)),
    )
    values = [pair for config in configs for pair in config.items() if pair[1] is not None]
    return [
        f"{each}={shown(value)}, {words}"
        for named, words, fits in kinds
        for each, value in values
        if each in named and not fits(value)
    ]


def _vision_faults(vision: dict[str, Any], any_heads: bool) -> list[str]:
    image, width, head_width = vision.get("image_size", 224), vision.get("width", 768), vision.get("head_width", 64)
    sides = dict(zip(("image_size", "image width"), image, strict=False)) if isinstance(image, (list, tuple)) else {}
    sizes = {"width": width, "head_width": head_width, "patch_size": vision.get("patch_size", 16)}
    sizes |= {"image_size": image} if len(sides) != 2 else sides
    faults = [*_whole(sizes), *_layers(vision)]
    return faults or ([] if any_heads or not width % (width // head_width or width + 1) else [_heads(width)])


def _text_faults(text: dict[str, Any]) -> list[str]:
    width, heads = text.get("width", 512), text.get("heads", 8)
    words, context = text.get("vocab_size", 49408), text.get("context_length", 77)
    faults = [*_whole({"width": width, "heads": heads, "vocab_size": words, "context_length": context}), *_layers(text)]
    faults += _whole({"eos_id": text.get("eos_id", 2), "pad_id": text.get("pad_id", 0)}, least=0)
    return faults or ([_heads(width)] if width % heads else [])


def _heads(width: int) -> str:
    return f"its heads do not share a width of {width}"


def _tower_faults(config: dict[str, Any], usual_width: int, model_cfg: dict[str, Any]) -> list[str]:
    """In what both towers may be wrong beside their sizes, which fit."""
    ratio, norm, activation = config.get("mlp_ratio", 4.0), config.get("norm_kwargs"), config.get("act_kwargs")
    epsilon = (norm or {"eps": 1e-5}) if isinstance(norm, (dict, NoneType)) else {}
    approximate = (activation or {}) if isinstance(activation, (dict, NoneType)) else {"": ""}
    scale, width = config.get("ls_init_value"), config.get("width", usual_width)
    faults = {
        f"mlp_ratio={shown(ratio)}": not _positive(ratio) or ratio * width < 1,
        f"ls_init_value={shown(scale)}": scale is not None and type(scale) not in (int, float),
        f"norm_kwargs={shown(norm)}": epsilon.keys() != {"eps"} or not _positive(epsilon["eps"]) or epsilon["eps"] >= 1,
        f"act_kwargs={shown(activation)}": not approximate.keys() <= {"approximate"}
        or approximate.get("approximate", "none") not in ("none", "tanh")
        or bool(approximate and model_cfg.get("quick_gelu")),
    }
    return [fault for fault, present in faults.items() if present]


def _layers(config: dict[str, Any]) -> list[str]:
    layers = config.get("layers", 12)
    fits = type(layers) is int and 0 < layers <= _MOST_LAYERS
    return [] if fits else [f"it asks for {shown(layers)} layers, of at most {_MOST_LAYERS:,}"]


def _whole(sizes: dict[str, Any], least: int = 1) -> list[str]:
    above = "above 0" if least else "from 0 on"
    return [
        f"{name} is {shown(size)}, not a whole number {above}"
        for name, size in sizes.items()
        if type(size) is not int or not least <= size < _LARGEST
    ]


def _positive(number: Any, above: int = 0) -> bool:
    """Whether it is a number above 0, or another one, of which sizes can be made."""
    return type(number) in (int, float) and above < number < 1 << 40
