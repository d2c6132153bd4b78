"""Both towers of a model from its config and weights: the image tower's state dict, and the text tower in float32."""

from copy import deepcopy
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from ..errors import ModelError
from .architecture import architecture_of_config, architecture_of_state, names_of, trained_size
from .blip import BLIP, blip_scale, blip_shapes, blip_state, pack_blip_text, random_blip
from .clip_names import COCA, check_finite, to_clip
from .hf_text import Module, TextMaker, hf_text, make_mask
from .siglip import SIGLIP, siglip_visual
from .weights_file import Weights

_MOST_NAMES = 3  # in a message
_MOST_LAYERS = 1 << 10
_AT_ONCE = 1 << 21  # numbers of a tensor that are copied before the file's pages leave memory
# What open_clip raises for settings that make no model.
_UNFIT = (TypeError, ValueError, KeyError, ArithmeticError, AssertionError, AttributeError, RuntimeError)


@dataclass(frozen=True)
class Towers:
    """A model taken apart.

    Attributes:
        vision_state: the image tower's weights, in open_clip's names, or timm's behind `trunk.`.
        text: token ids to embeddings, see `text.embed_tokens`.
        logit_scale, logit_bias: of the loss in training, where the model's scores are made with them.
    """

    vision_state: dict[str, Tensor]
    text: nn.Module
    logit_scale: float | None = None
    logit_bias: float | None = None


def build_towers(name: str, model_cfg: dict[str, Any], weights: Weights | None, places: tuple[Path, ...]) -> Towers:
    """The towers with these weights, or random ones; positions are those of the size that they were trained with.

    Args:
        name: of the model, for messages.
        model_cfg: open_clip's, or BLIP's. The size of its images becomes that of the weights.
        weights: under the names of their file.
        places: folders that may have the configuration of a Hugging Face text tower.

    Raises:
        ModelError: the weights are of another model; the message names it.
    """
    if BLIP in model_cfg:
        return _blip(name, model_cfg, weights)
    if weights is not None:
        weights = to_clip(weights, model_cfg)
        _check_architecture(name, model_cfg, weights)
        if size := trained_size(weights.state):
            model_cfg["vision_cfg"]["image_size"] = size
    _check_layers(name, model_cfg)
    device = "cpu" if weights is None else "meta"
    if SIGLIP in model_cfg:
        with torch.device(device):
            visual = siglip_visual(model_cfg)
        return _by_parts(name, model_cfg, weights, visual, _text(name, model_cfg, device))
    by_others = bool((model_cfg.get("text_cfg") or {}).get("hf_model_name"))
    if by_others or COCA in model_cfg:
        text = hf_text(name, model_cfg, places) if by_others else _text(name, model_cfg, device)
        return _by_parts(name, model_cfg, weights, _visual(name, model_cfg, device), text)
    clip = _open_clip(name, model_cfg, meta=weights is not None)
    tower = clip.text if is_custom(model_cfg) else clip
    if weights is not None:
        _fill(name, clip, tower, weights)
    vision_state = dict(clip.visual.state_dict())
    scale = bias = None
    if getattr(clip, "logit_bias", None) is not None:
        scale, bias = float(clip.logit_scale.detach().exp()), float(clip.logit_bias.detach())
    if tower is clip:
        del clip.visual
    return Towers(vision_state, tower.float().requires_grad_(False).eval(), scale, bias)


def _check_layers(name: str, model_cfg: dict[str, Any]) -> None:
    """Refuse what would take for ever to make, even without memory for it."""
    for tower in ("vision_cfg", "text_cfg"):
        layers = (model_cfg.get(tower) or {}).get("layers", 12)
        if type(layers) is not int or layers > _MOST_LAYERS:
            raise ModelError(f"{name}: its {tower} asks for {str(layers)[:20]} layers, more than {_MOST_LAYERS:,}")


def is_custom(model_cfg: dict[str, Any]) -> bool:
    """Whether open_clip keeps the text tower of such a model in a module of its own."""
    return bool(model_cfg.get("custom_text") or (model_cfg.get("text_cfg") or {}).get("hf_model_name"))


def _open_clip(name: str, model_cfg: dict[str, Any], meta: bool) -> Any:
    """open_clip's model; on the meta device nothing is initialised that weights replace."""
    config = deepcopy(model_cfg)
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    try:
        with torch.device("meta" if meta else "cpu"):
            return kind(**config)
    except _UNFIT as error:
        raise ModelError(f"{name}: open_clip can't make a model of its config: {str(error)[:200]}") from error


def _fill(name: str, clip: Any, text: Any, weights: Weights) -> None:
    """Give both towers their weights; those of the text tower are named without a prefix."""
    state = dict(weights.state)
    short = {key: key if text is clip else key.removeprefix("text.") for key in clip.state_dict()}
    for key in ("logit_scale", "logit_bias"):
        value = state.pop(key, None)
        if key in short:
            state[key] = torch.zeros(()) if value is None else value.reshape(())
    check_fit(name, {short[key]: value.shape for key, value in clip.state_dict().items()}, state, weights)
    clip.load_state_dict({key: own(state.pop(source), weights) for key, source in short.items()}, assign=True)
    make_mask(text)


def own(value: Tensor, weights: Weights) -> Tensor:
    """A copy in float32: the file, which is mapped, may change or go away, and what was read of it leaves memory."""
    copied = torch.empty(value.shape, dtype=torch.float32)
    target, source = (copied, value) if value.ndim else (copied[None], value[None])
    rows = max(1, _AT_ONCE * len(source) // max(1, source.numel()))
    for part, read in zip(target.split(rows), source.split(rows), strict=True):
        part.copy_(read)
        weights.release()
    return copied


def _visual(name: str, model_cfg: dict[str, Any], device: str) -> dict[str, Tensor]:
    """The state of open_clip's image tower."""
    settings = deepcopy(model_cfg["vision_cfg"])
    try:
        with torch.device(device):
            build = open_clip.model._build_vision_tower
            return dict(build(model_cfg["embed_dim"], settings, bool(model_cfg.get("quick_gelu"))).state_dict())
    except _UNFIT as error:
        raise ModelError(f"{name}: open_clip can't make a model of its config: {str(error)[:200]}") from error


def _text(name: str, model_cfg: dict[str, Any], device: str) -> Module:
    """open_clip's text transformer, by itself."""
    settings, quick = deepcopy(model_cfg["text_cfg"]), bool(model_cfg.get("quick_gelu"))
    try:
        with torch.device(device):
            return Module(open_clip.model._build_text_tower(model_cfg["embed_dim"], settings, quick))
    except _UNFIT as error:
        raise ModelError(f"{name}: open_clip can't make a model of its config: {str(error)[:200]}") from error


def _by_parts(
    name: str, model_cfg: dict[str, Any], weights: Weights | None, visual: dict[str, Tensor], text: TextMaker
) -> Towers:
    """A model whose towers are made one by one: of the image tower's names and shapes, and a text tower to be made."""
    if weights is None:
        return Towers(visual, text.made(text.random()))
    state = text.taken(dict(weights.state))
    numbers = [state.pop(key, None) for key in ("logit_scale", "logit_bias")]
    scale, bias = (None if value is None else float(value) for value in numbers)
    if scale is None or bias is None or "init_logit_bias" not in model_cfg:
        scale = bias = None
    shapes = {f"visual.{key}": tuple(value.shape) for key, value in visual.items()}
    check_fit(name, shapes | text.shapes(), state, weights)
    state = {key: own(state.pop(key), weights) for key in list(state)}
    vision = {key: state.pop(key) for key in list(state) if key.startswith("visual.")}
    visual_state = {key.removeprefix("visual."): value for key, value in vision.items()}
    return Towers(visual_state, text.made(state), None if scale is None else exp(scale), bias)


def _blip(name: str, model_cfg: dict[str, Any], weights: Weights | None) -> Towers:
    if weights is None:
        state = random_blip(model_cfg)
    else:
        state = blip_state(weights)
        if "trunk.pos_embed" not in state or "text_proj.weight" not in state:
            raise ModelError(f"weights: {weights.path} holds no BLIP with a projection of images and of texts")
        check_finite(state, weights)
        patches = state["trunk.pos_embed"].shape[1] - 1 if state["trunk.pos_embed"].ndim == 3 else 0
        side = round(max(0, patches) ** 0.5) * model_cfg[BLIP]["vision"]["patch_size"]
        model_cfg[BLIP]["vision"]["image_size"] = side or model_cfg[BLIP]["vision"]["image_size"]
        check_fit(name, blip_shapes(model_cfg), state, weights)
        state = {key: own(state.pop(key), weights) for key in list(state)}
    text = pack_blip_text(state, model_cfg)
    return Towers(state, text, blip_scale(weights))


def _check_architecture(name: str, model_cfg: dict[str, Any], weights: Weights) -> None:
    asked = architecture_of_config(model_cfg)
    found = architecture_of_state(weights.state)
    if found is None or asked is None or found == asked:
        return  # what is missing is told with the names
    size = trained_size(weights.state)
    names = names_of(found, size, bool(model_cfg.get("quick_gelu"))) or names_of(found, size, quick_gelu=False)
    advice = f"name the model {' or '.join(names[:_MOST_NAMES])}" if names else "no supported model is like it"
    raise ModelError(
        f"weights: {weights.path} does not fit the model {name}, a {asked}: it is of a {found}, with "
        f"{found.difference(asked)}; {advice}"
    )


def check_fit(name: str, wanted: dict[str, Any], state: dict[str, Tensor], weights: Weights) -> None:
    """Raise ModelError unless the state has the names and shapes that are wanted, and floating numbers."""
    both = [key for key in wanted if key in state]
    faults = {
        "Missing keys": [key for key in wanted if key not in state],
        "Unknown keys": [key for key in state if key not in wanted],
        "Other shapes": [
            f"{key} {list(state[key].shape)} instead of {list(wanted[key])}"
            for key in both
            if tuple(state[key].shape) != tuple(wanted[key])
        ],
        "No floating numbers": [f"{key} {state[key].dtype}" for key in both if not state[key].is_floating_point()],
    }
    told = [f"{fault}: {_some(keys)}" for fault, keys in faults.items() if keys]
    if told:
        raise ModelError(f"weights: {weights.path} is damaged or does not fit the model {name}. {'. '.join(told)}")


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _MOST_NAMES} more" if len(keys) > _MOST_NAMES else ""
    return ", ".join(key[:100] for key in keys[:_MOST_NAMES]) + more
