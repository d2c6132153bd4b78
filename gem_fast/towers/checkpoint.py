"""From a model's name, tag, file or folder to its weights and all that belongs to them."""

import os.path
from collections.abc import MutableMapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ModelError
from ..options import Defaults
from .blip_config import BLIP
from .building import build_towers
from .configs import EMBEDDED, embedded_folder, find_config, pretrained_tags, supported_models
from .model_tokenizer import tokenizer_of
from .quick_gelu import tells_activation, warn_of_other_activation
from .served import vision_config, why_unsupported
from .settings import check_config
from .sources import Source, described_model, describes_itself, local_weights, pretrained_weights, usual_images
from .text_config import text_config
from .text_tower import pack_text
from .vision_config import VisionConfig
from .weights_file import read_weights


@dataclass(frozen=True)
class Checkpoint:
    """A model, taken apart: vision weights to pack, and the text tower."""

    name: str
    source: str  # the pretrained tag, the file, "embedded" or "random"
    vision_config: VisionConfig
    vision_state: MutableMapping[str, Tensor]
    text: nn.Module  # token ids to embeddings, see `text.embed_tokens`
    tokenizer: Any  # texts -> token ids [n, context]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    defaults: Defaults = field(default_factory=Defaults)
    options: dict[str, Any] = field(default_factory=dict)  # the model's own GemOptions, where not the paper's
    known_tokens: Tensor | None = None  # ids the text tower has rows for, or None for all
    logit_bias: float | None = None  # of a model that was trained with a sigmoid


def read_checkpoint(
    name: str,
    pretrained: str | None = None,
    weights: str | Path | None = None,
    tokenizer: str | Path | None = None,
) -> Checkpoint:
    """Load a model by name.

    Args:
        name: one of `supported_models()`; or a model that describes itself: a folder as open_clip or Hugging Face
            writes it, `"local-dir:FOLDER"`, or `"hf-hub:OWNER/NAME"`, which is fetched.
        pretrained: a tag of open_clip, which downloads the weights, or `"random"` for untrained weights.
        weights: a local file or folder, instead of a tag. Nothing but tensors is taken from a file, and nothing in it
            is run.
        tokenizer: a local `tokenizer.json` or `vocab.txt`, or a folder with one, for a model whose tokenizer is not
            CLIP's own.

    Raises:
        ModelError: the name, tag or file can't be used.
    """
    check_asked(name, pretrained, weights, tokenizer)
    if name in EMBEDDED:
        return _read_embedded(name)
    source = _find(name, pretrained, weights)
    model_cfg = deepcopy(source.model_cfg)
    places = _places(source, tokenizer)
    words = tokenizer_of(name, model_cfg, None if tokenizer is None else Path(tokenizer), places)
    read = None if source.weights is None else read_weights(source.weights)
    towers = build_towers(name, model_cfg, read, places)
    if read is not None and not source.knows_activation and tells_activation(model_cfg):
        warn_of_other_activation(name, model_cfg, read)
    images, defaults = source.preprocessing, Defaults()
    if images.size is not None:
        defaults = replace(defaults, size=images.size)
    if BLIP in model_cfg:
        defaults = replace(defaults, size=images.size or model_cfg["vision_cfg"]["image_size"], resize="squash")
    if towers.logit_scale is not None:
        defaults = replace(defaults, logit_scale=towers.logit_scale)
    return Checkpoint(
        name=source.name or name,
        source=source.label,
        vision_config=vision_config(model_cfg),
        vision_state=towers.vision_state,
        text=towers.text,
        tokenizer=words,
        mean=images.mean,
        std=images.std,
        interpolation=images.interpolation,
        defaults=defaults,
        logit_bias=towers.logit_bias,
    )


def check_asked(
    name: str, pretrained: str | None, weights: str | Path | None, tokenizer: str | Path | None = None
) -> None:
    """Raise ModelError for a name or a tag that there is none of, before anything is fetched or read."""
    if name in EMBEDDED:
        if pretrained or weights or tokenizer:
            raise ModelError(f"{name} brings its own weights; leave out pretrained, weights and tokenizer")
        return
    if describes_itself(name):
        return
    _config_of(name)
    tags = [*pretrained_tags(name), "random"]
    if (pretrained is None) == (weights is None):
        raise ModelError(
            f"{name} needs either pretrained, one of {', '.join(tags)}, or weights, a local .safetensors or .pt file"
        )
    if pretrained not in (None, *tags):
        raise ModelError(
            f"{name} has no weights {pretrained!r}; its tags are: {', '.join(tags)}; weights takes a local file"
        )


def _places(source: Source, tokenizer: str | Path | None) -> tuple[Path, ...]:
    """Folders that may hold the files of a text tower: where the tokenizer is, and beside the weights."""
    given = None if tokenizer is None else Path(tokenizer)
    folder = given if given is None or given.is_dir() else given.parent
    return tuple(place for place in (folder, source.folder) if place is not None)


def _find(name: str, pretrained: str | None, weights: str | Path | None) -> Source:
    """Where the weights of a model are, of whom `check_asked` has nothing to say."""
    if describes_itself(name):
        source = described_model(name, pretrained, weights)
        check_config(name, source.model_cfg)
        if reason := why_unsupported(source.model_cfg):
            raise ModelError(f"{name} is not supported: {reason}")
        return source
    model_cfg = _config_of(name)
    check_config(name, model_cfg)
    if weights is not None:
        return local_weights(name, model_cfg, Path(weights))
    assert pretrained is not None
    if pretrained == "random":
        return Source("random", model_cfg, None, usual_images(model_cfg))
    return pretrained_weights(name, model_cfg, pretrained)


def _config_of(name: str) -> dict[str, Any]:
    """open_clip's config of a supported model."""
    config = find_config(name)
    if config is None:
        if os.path.isfile(name):
            raise ModelError(f"{name} is a file; give the name of its model, and the file as weights")
        if os.path.isdir(name):
            raise ModelError(f"the folder {name} has neither open_clip_config.json nor Hugging Face's config.json")
        raise ModelError(f"no model is called {name!r}; supported are: {', '.join(supported_models())}")
    if reason := why_unsupported(config.model_cfg):
        raise ModelError(f"{name} is not supported: {reason}. Supported are: {', '.join(supported_models())}")
    return config.model_cfg


def _read_embedded(name: str) -> Checkpoint:
    config = find_config(name)
    assert config is not None
    state = {key: value.float() for key, value in load_file(embedded_folder(name) / "model.safetensors").items()}
    rows = state.pop("token_embedding.rows").long()
    model_cfg = config.model_cfg
    text = model_cfg["text_cfg"]
    embedding = torch.zeros(text["vocab_size"], text["width"], dtype=torch.float32)
    embedding[rows] = state.pop("token_embedding.values")
    vision = {key: state.pop(key) for key in list(state) if key.startswith("visual.")}
    return Checkpoint(
        name=name,
        source="embedded",
        vision_config=vision_config(model_cfg),
        vision_state={key.removeprefix("visual."): value for key, value in vision.items()},
        text=pack_text(state | {"token_embedding.weight": embedding}, text_config(model_cfg)),
        tokenizer=tokenizer_of(name, model_cfg),
        mean=tuple(config.preprocess["mean"]),
        std=tuple(config.preprocess["std"]),
        defaults=Defaults(**config.defaults),
        options=config.options,
        known_tokens=rows,
    )
