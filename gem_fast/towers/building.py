"""Both towers of a model from its config and weights: the image tower's state dict, and the text tower in float32."""

import mmap
from collections.abc import Iterator, MutableMapping
from copy import deepcopy
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .architecture import architecture_of_config, architecture_of_state, names_of, trained_size
from .blip import blip_scale, blip_shapes, blip_state, pack_blip_text
from .blip_config import BLIP
from .clip_names import check_finite, to_clip
from .hf_text import hf_text
from .settings import is_own_vision
from .shapes import Shapes, vision_shapes
from .text_config import text_config
from .text_maker import OwnText, TextMaker
from .untrained import untrained
from .weights_file import Weights

_MOST_NAMES = 3  # in a message
_FIRST_SCALE = log(1 / 0.07)  # with which training begins
_MOST_SCALE = 50.0  # float32 has no place for the confidences of more
_LARGE = 1 << 18  # numbers of a tensor that has memory of its own
_AT_ONCE = 1 << 21  # numbers of a tensor that are copied before the file's pages leave memory
# What open_clip raises for settings that make no model.
_UNFIT = (TypeError, ValueError, KeyError, ArithmeticError, AssertionError, AttributeError, RuntimeError)


@dataclass(frozen=True)
class Towers:
    """A model taken apart.

    Attributes:
        vision_state: the image tower's weights, in open_clip's names, or timm's behind `trunk.`. Those of a file are
            read as they are taken: one that packs them in a smaller type never holds all of them in float32.
        text: token ids to embeddings, see `text.embed_tokens`.
        logit_scale, logit_bias: of the loss in training, where the model's scores are made with them.
    """

    vision_state: MutableMapping[str, Tensor]
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
        size, told = trained_size(weights.state), model_cfg["vision_cfg"].get("image_size")
        if size and not isinstance(told, (list, tuple)):  # a height and a width are those of the positions
            model_cfg["vision_cfg"]["image_size"] = size
    text = text_maker(name, model_cfg, places)
    return _random(name, model_cfg, text) if weights is None else _trained(name, model_cfg, weights, text)


def text_maker(name: str, model_cfg: dict[str, Any], places: tuple[Path, ...]) -> TextMaker:
    """What makes the text tower, and knows its weights by name."""
    by_others = bool((model_cfg.get("text_cfg") or {}).get("hf_model_name"))
    return hf_text(name, model_cfg, places) if by_others else OwnText(text_config(model_cfg))


def own(value: Tensor, weights: Weights) -> Tensor:
    """A copy in float32: the file, which is mapped, may change or go away, and what was read of it leaves memory."""
    copied = _room(value.shape)
    target, source = (copied, value) if value.ndim else (copied[None], value[None])
    rows = max(1, _AT_ONCE * len(source) // max(1, source.numel()))
    for part, read in zip(target.split(rows), source.split(rows), strict=True):
        part.copy_(read)
        weights.release()
    return copied


def _room(shape: torch.Size) -> Tensor:
    """For float32 numbers. Where it is large it goes back to the system when it is freed, which malloc's does not
    always: what is copied here soon lies in another layout or type."""
    if shape.numel() < _LARGE:
        return torch.empty(shape, dtype=torch.float32)
    memory = mmap.mmap(-1, 4 * shape.numel(), access=mmap.ACCESS_COPY)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape)


class Unread(MutableMapping[str, Tensor]):
    """Tensors of a file, of which each that is asked for is copied, see `own`."""

    def __init__(self, state: dict[str, Tensor], weights: Weights) -> None:
        self._state, self._weights = state, weights

    def __getitem__(self, name: str) -> Tensor:
        return own(self._state[name], self._weights)

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._state[name] = value

    def __delitem__(self, name: str) -> None:
        del self._state[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def _random(name: str, model_cfg: dict[str, Any], text: TextMaker) -> Towers:
    """A model that was not trained."""
    first = model_cfg.get("init_logit_scale", _FIRST_SCALE), model_cfg.get("init_logit_bias")
    scale_and_bias = _scale_and_bias(name, model_cfg, *first)
    try:
        visual = untrained(vision_shapes(model_cfg)) if is_own_vision(model_cfg) else _open_clips(name, model_cfg)
        return Towers(visual, text.made(text.random()), *scale_and_bias)
    except RuntimeError as error:  # of torch, for sizes that no memory holds
        raise ModelError(f"{name}: no model can be made of its config: {str(error)[:200]}") from error


def _open_clips(name: str, model_cfg: dict[str, Any]) -> dict[str, Tensor]:
    """The untrained image tower that open_clip makes on torch's default device: it alone can make timm's and CoCa's."""
    import open_clip

    settings = deepcopy(model_cfg["vision_cfg"])
    try:
        build = open_clip.model._build_vision_tower
        return dict(build(model_cfg["embed_dim"], settings, bool(model_cfg.get("quick_gelu"))).state_dict())
    except _UNFIT as error:
        raise ModelError(f"{name}: open_clip can't make a model of its config: {str(error)[:200]}") from error


def _vision_shapes(name: str, model_cfg: dict[str, Any]) -> Shapes:
    if is_own_vision(model_cfg):
        return vision_shapes(model_cfg)
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in _open_clips(name, model_cfg).items()}


def _trained(name: str, model_cfg: dict[str, Any], weights: Weights, text: TextMaker) -> Towers:
    state = text.taken(dict(weights.state))
    told = [_number(state, key, weights) for key in ("logit_scale", "logit_bias")]
    scale_and_bias = _scale_and_bias(f"weights: {weights.path}", model_cfg, *told)
    shapes = {f"visual.{key}": shape for key, shape in _vision_shapes(name, model_cfg).items()}
    check_fit(name, shapes | text.shapes(), state, weights)
    vision = {key: state.pop(key) for key in list(state) if key.startswith("visual.")}
    visual_state = Unread({key.removeprefix("visual."): value for key, value in vision.items()}, weights)
    state = {key: own(state.pop(key), weights) for key in list(state)}
    return Towers(visual_state, text.made(state), *scale_and_bias)


def _number(state: dict[str, Tensor], key: str, weights: Weights) -> float | None:
    """A number, taken out of the weights, or None if they lack it."""
    value = state.pop(key, None)
    if value is not None and value.numel() != 1:
        raise ModelError(f"weights: {weights.path} is damaged: {key} is {list(value.shape)}, not one number")
    return None if value is None else float(value)


def _scale_and_bias(
    label: str, model_cfg: dict[str, Any], scale: float | None, bias: float | None
) -> tuple[float | None, float | None]:
    """Those of the sigmoid in training, of the logarithm of the scale; neither for a model that had none."""
    if scale is None or bias is None or "init_logit_bias" not in model_cfg:
        return None, None
    if scale > _MOST_SCALE:
        raise ModelError(f"{label} can't be used: logit_scale is {scale:g}, and the cosines' factor its exponential")
    return exp(scale), bias


def _blip(name: str, model_cfg: dict[str, Any], weights: Weights | None) -> Towers:
    state: MutableMapping[str, Tensor]
    if weights is None:
        state = untrained(blip_shapes(model_cfg))
    else:
        found = blip_state(weights)
        if "trunk.pos_embed" not in found or "text_proj.weight" not in found:
            raise ModelError(f"weights: {weights.path} holds no BLIP with a projection of images and of texts")
        check_finite(found, weights)
        patches = found["trunk.pos_embed"].shape[1] - 1 if found["trunk.pos_embed"].ndim == 3 else 0
        side = round(max(0, patches) ** 0.5) * model_cfg[BLIP]["vision"]["patch_size"]
        model_cfg[BLIP]["vision"]["image_size"] = side or model_cfg[BLIP]["vision"]["image_size"]
        check_fit(name, blip_shapes(model_cfg), found, weights)
        state = Unread(found, weights)
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
