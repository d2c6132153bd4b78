"""Which activation weights were trained with, where a file gives it away: the weights themselves can't tell."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

from ..errors import ModelError, shown
from .open_clip_files import model_names
from .weights_file import Weights

_OPENAI_SETTINGS = {"input_resolution", "context_length", "vocab_size"}
_OPENAI_FILES = re.compile(r"(ViT-B-32|ViT-B-16|ViT-L-14|ViT-L-14-336px)\.pt")
_METACLIP_FILES = re.compile(r"[blhg]\d\d_(400m|fullcc).*\.pt", re.IGNORECASE)
_OWNERS = re.compile(r"(^|[^a-z])(openai|metaclip|dfn\d?b?)([^a-z]|$)", re.IGNORECASE)
_HUB_FOLDER = re.compile(r"models--(.+)")


def tells_activation(model_cfg: dict[str, Any]) -> bool:
    """Whether it is the model's config that says `quick_gelu` or not; timm's towers have activations of their own."""
    return "text_cfg" in model_cfg and not model_cfg["vision_cfg"].get("timm_model_name")


def warn_of_other_activation(name: str, model_cfg: dict[str, Any], weights: Weights) -> None:
    """Warn where the model's activation is not the one that the weights seem to be trained with."""
    quick = bool(model_cfg.get("quick_gelu"))
    told = _config_beside(weights)
    if told is not None:
        expected, reason = told == "quick_gelu", f"the config.json beside it says {shown(told)}"
    elif trace := _quick_gelu_trace(weights):
        expected, reason = True, trace
    else:
        return
    if expected is not quick:
        right = _sibling(name, expected)
        advice = f"name the model {right}" if right else "load it as a folder with its config.json"
        wanted, used = ("QuickGELU", "GELU") if expected else ("GELU", "QuickGELU")
        warnings.warn(
            f"weights: {weights.path.name} was probably trained with {wanted} ({reason}), but {name} computes {used}, "
            f"which gives worse features: {advice}",
            stacklevel=2,
        )


def require_activation(name: str, model_cfg: dict[str, Any], described: dict[str, Any], folder: Path) -> None:
    """Refuse a model's name for a folder whose config tells another activation."""
    quick = bool(described.get("quick_gelu"))
    if quick is not bool(model_cfg.get("quick_gelu")):
        right = _sibling(name, quick)
        named = f"name the model {right}, or " if right else ""
        raise ModelError(
            f"weights: {folder} was trained with {'QuickGELU' if quick else 'GELU'}, as its configuration says, and "
            f"{name} computes {'GELU' if quick else 'QuickGELU'}: {named}load the folder without another name"
        )


def _config_beside(weights: Weights) -> str | None:
    """The activation in a Hugging Face config next to the file."""
    path = weights.path.with_name("config.json")
    try:
        config = json.loads(path.read_text()) if path.is_file() and path.stat().st_size < 1 << 20 else {}
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict) or config.get("model_type") != "clip":
        return None
    vision = config.get("vision_config")
    return str(vision.get("hidden_act", "quick_gelu")) if isinstance(vision, dict) else None


def _quick_gelu_trace(weights: Weights) -> str | None:
    """What in a file betrays OpenAI's, MetaCLIP's or DFN's weights."""
    if _OPENAI_SETTINGS & {*weights.settings, *weights.state}:
        return "it holds input_resolution and the like, as OpenAI's weights do"
    if weights.scripted:
        return "it is a TorchScript archive, as OpenAI publishes them"
    if _OPENAI_FILES.fullmatch(weights.path.name):
        return "it is named as OpenAI's files are"
    if _METACLIP_FILES.fullmatch(weights.path.name):
        return "it is named as MetaCLIP's files are"
    hub = next((match[1] for part in weights.path.parts if (match := _HUB_FOLDER.fullmatch(part))), "")
    owner = _OWNERS.search(hub) or _OWNERS.search(weights.path.name)
    return f"its name says {owner[2]}" if owner else None


def _sibling(name: str, quick: bool) -> str | None:
    """The model's name with the other activation, if open_clip has one."""
    other = f"{name}-quickgelu" if quick else name.removesuffix("-quickgelu")
    return other if other in model_names() else None
