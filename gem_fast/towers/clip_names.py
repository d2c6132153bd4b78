"""Names of CLIP weights: Hugging Face's and open_clip's with a text tower of its own, to those of `open_clip.CLIP`."""

import re
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from .known_states import kind_of_state
from .siglip import is_siglip, siglip_state
from .siglip_config import SIGLIP
from .weights_file import Weights

COCA = "multimodal_cfg"  # the key of a model config that is CoCa's
# Beside the weights: constants and counters.
_IGNORED = re.compile(
    r"(.*\.)?(attn_mask|position_ids|total_ops|total_params)|input_resolution|context_length|vocab_size"
)
_TOP = {
    "logit_scale": "logit_scale",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
}
_NORMS = {
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.pre_layernorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.final_layer_norm": "ln_final",
}
_LAYER = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_IN_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def to_clip(weights: Weights, model_cfg: dict[str, Any]) -> Weights:
    """The weights under `open_clip.CLIP`'s names, those of an image tower of timm's under its own.

    Raises:
        ModelError: they are of something else, which the message names, or some are NaN or infinite.
    """
    state = {name: value for name, value in weights.state.items() if not _IGNORED.fullmatch(name)}
    if COCA in model_cfg:  # its tower for captions is left out
        state = {name: value for name, value in state.items() if not name.startswith("text_decoder.")}
    if kind := _other_kind(state, model_cfg):
        archive = "is a TorchScript archive that " if weights.scripted else ""
        raise ModelError(f"weights: {weights.path} {archive}holds {kind}")
    check_finite(state, weights)
    if "vision_model.embeddings.patch_embedding.weight" in state:
        state = _from_hugging_face(state)
        if SIGLIP in model_cfg:
            state = siglip_state(state, model_cfg)
    elif any(name.startswith("text.") for name in state):
        state = {name.removeprefix("text."): value for name, value in state.items()}
    return replace(weights, state=state)


def check_finite(state: dict[str, Tensor], weights: Weights) -> None:
    """Raise ModelError if a number is none; what was read of the file leaves memory again."""
    for name, value in state.items():
        if value.numel() and not _is_finite(value):
            raise ModelError(f"weights: {weights.path} is not usable: {name[:100]} holds NaN or infinite values")
        weights.release()


def _other_kind(state: dict[str, Tensor], model_cfg: dict[str, Any]) -> str | None:
    """What a state dict is that is no CLIP of a vision transformer, or None if it is one."""
    trunk = model_cfg["vision_cfg"].get("timm_model_name") and "visual.trunk.pos_embed" in state
    words = (model_cfg.get("text_cfg") or {}).get("hf_model_name") and any(
        n.startswith("text.transformer.") for n in state
    )
    if trunk or words or (SIGLIP in model_cfg and is_siglip(state)):
        return None
    if kind := kind_of_state(state):
        return kind
    if {"visual.conv1.weight", "vision_model.embeddings.class_embedding"} & set(state):
        return None
    return f"weights of no CLIP: {', '.join(name[:60] for name in list(state)[:3]) or 'only constants'}"


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point():
        return True
    low, high = torch.aminmax(value.float())
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """q, k and v become one matrix, and the projections, linear layers there, are matrices here."""
    renamed: dict[str, Tensor] = {}
    left = dict(state)
    for name in state:
        if target := _hugging_face_name(name):
            renamed[target] = left.pop(name)
        elif name.endswith(".self_attn.q_proj.weight"):
            renamed |= _packed(left, name.removesuffix(".q_proj.weight"))
        elif name in ("visual_projection.weight", "text_projection.weight") and state[name].ndim == 2:
            target = "visual.proj" if name.startswith("visual") else "text_projection"
            renamed[target] = left.pop(name).T
    return renamed | left  # what is not known is told later


def _hugging_face_name(name: str) -> str | None:
    module, _, kind = name.rpartition(".")
    if name in _TOP or module in _NORMS:
        return _TOP.get(name) or f"{_NORMS[module]}.{kind}"
    if (match := _LAYER.fullmatch(name)) and match[3] in _IN_LAYER:
        return f"{_block(match)}.{_IN_LAYER[match[3]]}.{match[4]}"
    return None


def _packed(left: dict[str, Tensor], attention: str) -> dict[str, Tensor]:
    match = _LAYER.fullmatch(f"{attention}.weight")
    assert match is not None
    packed = {}
    for kind in ("weight", "bias"):
        parts = [f"{attention}.{letter}_proj.{kind}" for letter in "qkv"]
        if all(part in left and left[part].shape == left[parts[0]].shape != () for part in parts):
            own = [left[part] for part in parts]
            if all(each.is_floating_point() for each in own):  # of several types as what they all become
                one = len({each.dtype for each in own}) == 1
                packed[f"{_block(match)}.attn.in_proj_{kind}"] = torch.cat([x if one else x.float() for x in own])
                for part in parts:
                    del left[part]
    return packed


def _block(match: re.Match[str]) -> str:
    return f"{'visual.' if match[1] == 'vision' else ''}transformer.resblocks.{match[2]}"
