"""Configurations of models by name, without their weights: open_clip's, and that of the model in this package."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

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
    from . import blip

    if name in blip.blip_names():
        return ModelConfig(
            blip.named_config(name), defaults={"size": 384, "logit_scale": blip.SCALE, "resize": "squash"}
        )
    import open_clip

    model_cfg = open_clip.get_model_config(name)
    return None if model_cfg is None else ModelConfig(model_cfg)


def embedded_folder(name: str) -> Path:
    """Where the files of a model in this package lie."""
    return Path(str(files("gem_fast")), "embedded", EMBEDDED[name])
