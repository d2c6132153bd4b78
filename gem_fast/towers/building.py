"""open_clip's CLIP from a config and weights under its names, in float32."""

from copy import deepcopy
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from ..errors import ModelError
from .architecture import architecture_of_config, architecture_of_state, names_of, trained_size
from .weights_file import Weights

_MOST_NAMES = 3  # in a message


def build_clip(name: str, model_cfg: dict[str, Any], weights: Weights) -> nn.Module:
    """The model with these weights; positions are those of the size that it was trained with.

    Raises:
        ModelError: the weights are of another model; the message names it.
    """
    _check_architecture(name, model_cfg, weights)
    if size := trained_size(weights.state):
        model_cfg["vision_cfg"]["image_size"] = size
    try:
        with torch.device("meta"):  # nothing is initialised that the weights replace
            clip: Any = open_clip.CLIP(**deepcopy(model_cfg))
    except (TypeError, ValueError, KeyError, ArithmeticError, AssertionError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{name}: open_clip can't make a model of its config: {str(error)[:200]}") from error
    state = dict(weights.state)
    scale = state.get("logit_scale")
    state["logit_scale"] = clip.logit_scale.new_ones((), device="cpu") if scale is None else scale.reshape(())
    _check_fit(name, clip.state_dict(), state, weights)
    clip.load_state_dict({key: _own(value) for key, value in state.items()}, assign=True)
    length = clip.attn_mask.shape[0]
    clip.attn_mask = torch.full((length, length), float("-inf")).triu_(1)
    return clip.eval()


def _own(value: Tensor) -> Tensor:
    """A copy in float32: the file, which is mapped, may change or go away."""
    return value.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def tokenizer_of(model_cfg: dict[str, Any]) -> Any:
    """CLIP's own tokenizer, with the context of the model."""
    text = model_cfg["text_cfg"]
    return open_clip.SimpleTokenizer(
        context_length=text.get("context_length", 77), **(text.get("tokenizer_kwargs") or {})
    )


def _check_architecture(name: str, model_cfg: dict[str, Any], weights: Weights) -> None:
    found, asked = architecture_of_state(weights.state), architecture_of_config(model_cfg)
    if found is None or found == asked:
        return  # what is missing is told with the names
    size = trained_size(weights.state)
    names = names_of(found, size, bool(model_cfg.get("quick_gelu"))) or names_of(found, size, quick_gelu=False)
    advice = f"name the model {' or '.join(names[:_MOST_NAMES])}" if names else "no supported model is like it"
    raise ModelError(
        f"weights: {weights.path} does not fit the model {name}, a {asked}: it is of a {found}, with "
        f"{found.difference(asked)}; {advice}"
    )


def _check_fit(name: str, wanted: dict[str, Tensor], state: dict[str, Tensor], weights: Weights) -> None:
    both = [key for key in wanted if key in state]
    faults = {
        "Missing keys": [key for key in wanted if key not in state],
        "Unknown keys": [key for key in state if key not in wanted],
        "Other shapes": [
            f"{key} {list(state[key].shape)} instead of {list(wanted[key].shape)}"
            for key in both
            if state[key].shape != wanted[key].shape
        ],
        "No floating numbers": [f"{key} {state[key].dtype}" for key in both if not state[key].is_floating_point()],
    }
    told = [f"{fault}: {_some(keys)}" for fault, keys in faults.items() if keys]
    if told:
        raise ModelError(f"weights: {weights.path} is damaged or does not fit the model {name}. {'. '.join(told)}")


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _MOST_NAMES} more" if len(keys) > _MOST_NAMES else ""
    return ", ".join(key[:100] for key in keys[:_MOST_NAMES]) + more
