"""Models by name, without their weights: open_clip's, BLIP's, and that in this package. Needs no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from .blip_config import SCALE, blip_names, named_config
from .open_clip_files import model_config, model_names, pretrained_table
from .served import why_unsupported

EMBEDDED = {"gem-tiny": "gem_tiny"}


@dataclass(frozen=True)
class ModelConfig:
    """What is known of a model.

    Attributes:
        model_cfg: what open_clip builds both towers from.
        preprocess: `mean` and `std`; empty where the weights' tag says.
        options, defaults: of `GemOptions` and `Defaults`, where not the usual ones.
        vocabulary: the words it knows, with their synonyms; empty where these can't be listed.
    """

    model_cfg: dict[str, Any]
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    vocabulary: Mapping[str, list[str]] = field(default_factory=dict)


def find_config(name: str) -> ModelConfig | None:
    """The configuration of a model; None if open_clip has none of that name either."""
    if name in EMBEDDED:
        settings = json.loads((embedded_folder(name) / "config.json").read_text(encoding="utf-8"))
        return ModelConfig(**{each.name: settings[each.name] for each in fields(ModelConfig)})
    if name in blip_names():
        return ModelConfig(named_config(name), defaults={"size": 384, "logit_scale": SCALE, "resize": "squash"})
    model_cfg = model_config(name)
    return None if model_cfg is None else ModelConfig(model_cfg)


def embedded_folder(name: str) -> Path:
    """Where the files of a model in this package lie."""
    return Path(str(files("gem_fast")), "embedded", EMBEDDED[name])


def supported_models() -> list[str]:
    """Names that `load` takes, the embedded ones first."""
    refused = unsupported_models()
    return [*EMBEDDED, *blip_names(), *(name for name in model_names() if name not in refused)]


def unsupported_models() -> dict[str, str]:
    """open_clip's other names, and why each is not served."""
    configs = {name: model_config(name) for name in model_names()}
    reasons = {name: why_unsupported(config) for name, config in configs.items() if config is not None}
    return {name: reason for name, reason in reasons.items() if reason}


def pretrained_tags(name: str) -> list[str]:
    """open_clip's pretrained tags of a model; none for an embedded one, which brings its weights."""
    return [] if name in (*EMBEDDED, *blip_names()) else list(pretrained_table().get(name, ()))
