"""Finding and reading weights: open_clip's names and tags, a local file, or the model in this package."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.factory import load_checkpoint
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ModelError
from ..options import Defaults
from .configs import EMBEDDED, embedded_folder, find_config
from .packing import vision_config, why_unsupported
from .vit import VisionConfig


@dataclass(frozen=True)
class Checkpoint:
    """A CLIP model, taken apart: vision weights to pack, and the text tower as open_clip runs it."""

    name: str
    source: str  # the pretrained tag, the file, "embedded" or "random"
    vision_config: VisionConfig
    vision_state: dict[str, Tensor]
    text: nn.Module  # open_clip's CLIP without its vision tower
    tokenizer: Any  # texts -> token ids [n, context]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    defaults: Defaults = field(default_factory=Defaults)
    options: dict[str, Any] = field(default_factory=dict)  # the model's own GemOptions, where not the paper's
    known_tokens: Tensor | None = None  # ids the text tower has rows for, or None for all


def supported_models() -> list[str]:
    """Names that `load` takes, the embedded ones first."""
    return [*EMBEDDED, *(n for n in open_clip.list_models() if not why_unsupported(open_clip.get_model_config(n)))]


def pretrained_tags(name: str) -> list[str]:
    """open_clip's pretrained tags of a model; none for an embedded one, which brings its weights."""
    return [] if name in EMBEDDED else list(open_clip.list_pretrained_tags_by_model(name))


def read_checkpoint(name: str, pretrained: str | None = None, weights: str | Path | None = None) -> Checkpoint:
    """Load a model by name.

    Args:
        name: one of `supported_models()`.
        pretrained: a tag of open_clip, which downloads the weights, or `"random"` for untrained weights.
        weights: a local `.safetensors` or `.pt` file with open_clip's names, instead of a tag. Pickled objects other
            than tensors are refused.

    Raises:
        ModelError: the name, tag or file can't be used.
    """
    if name in EMBEDDED:
        if pretrained or weights:
            raise ModelError(f"{name} brings its own weights; leave out pretrained and weights")
        return _read_embedded(name)
    model_cfg = open_clip.get_model_config(name)
    if model_cfg is None:
        raise ModelError(f"no model is called {name!r}; supported are: {', '.join(supported_models())}")
    if reason := why_unsupported(model_cfg):
        raise ModelError(f"{name} is not supported: {reason}. Supported are: {', '.join(supported_models())}")
    if (pretrained is None) == (weights is None):
        raise ModelError(
            f"{name} needs either pretrained, one of {', '.join([*pretrained_tags(name), 'random'])}, "
            "or weights, a local .safetensors or .pt file"
        )
    if weights is not None:
        path = _weights_file(weights)
        clip = open_clip.CLIP(**model_cfg)
        _load_file(clip, path)
        return _take_apart(name, str(weights), model_cfg, clip)
    assert pretrained is not None
    if pretrained == "random":
        return _take_apart(name, pretrained, model_cfg, open_clip.CLIP(**model_cfg))
    if pretrained not in pretrained_tags(name):
        tags = ", ".join([*pretrained_tags(name), "random"])
        raise ModelError(f"{name} has no weights {pretrained!r}; its tags are: {tags}; weights takes a local file")
    # The tag knows which activation its weights were trained with; the plain config of that name may not.
    model_cfg["quick_gelu"] = bool(open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu"))
    try:
        clip = open_clip.create_model(name, pretrained=pretrained, force_quick_gelu=model_cfg["quick_gelu"])
    except Exception as error:  # hub clients raise many kinds; the text is what helps
        raise ModelError(f"the weights {name}/{pretrained} could not be fetched or read: {error}") from error
    return _take_apart(name, pretrained, model_cfg, clip)


def _weights_file(weights: str | Path) -> Path:
    path = Path(weights)
    if not path.is_file():
        raise ModelError(f"weights: there is no file {path}")
    if path.suffix not in (".safetensors", ".pt", ".pth", ".bin"):
        raise ModelError(f"weights: {path} must be a .safetensors or .pt file")
    return path


def _load_file(clip: nn.Module, path: Path) -> None:
    try:
        load_checkpoint(clip, str(path), strict=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"weights: {path} holds more than tensors or is damaged, and arbitrary objects are never unpickled; "
            "save its state dict as .safetensors"
        ) from error
    except SafetensorError as error:
        raise ModelError(f"weights: {path} is not a readable safetensors file: {error}") from error
    except Exception as error:  # a damaged file can fail anywhere in torch's reader
        first_lines = "; ".join(line.strip() for line in str(error).splitlines()[:3]) or type(error).__name__
        raise ModelError(f"weights: {path} is damaged or does not fit the model: {first_lines}") from error


def _take_apart(name: str, source: str, model_cfg: dict[str, Any], clip: Any) -> Checkpoint:
    preprocess = {
        "mean": OPENAI_DATASET_MEAN,
        "std": OPENAI_DATASET_STD,
        **open_clip.get_model_preprocess_cfg(clip),
    }
    return Checkpoint(
        name=name,
        source=source,
        vision_config=vision_config(model_cfg),
        vision_state=dict(clip.visual.state_dict()),
        text=_text_tower(clip),
        tokenizer=open_clip.get_tokenizer(name),
        mean=tuple(preprocess["mean"]),
        std=tuple(preprocess["std"]),
    )


def _text_tower(clip: Any) -> nn.Module:
    """The model without its vision tower, which our own forward replaces."""
    del clip.visual
    return clip.float().requires_grad_(False).eval()


def _read_embedded(name: str) -> Checkpoint:
    config = find_config(name)
    assert config is not None
    state = {key: value.float() for key, value in load_file(embedded_folder(name) / "model.safetensors").items()}
    rows = state.pop("token_embedding.rows").long()
    model_cfg = config.model_cfg
    embedding = torch.zeros(model_cfg["text_cfg"]["vocab_size"], model_cfg["text_cfg"]["width"])
    embedding[rows] = state.pop("token_embedding.values")
    clip = open_clip.CLIP(**model_cfg)
    clip.load_state_dict({**state, "token_embedding.weight": embedding})
    return Checkpoint(
        name=name,
        source="embedded",
        vision_config=vision_config(model_cfg),
        vision_state=dict(clip.visual.state_dict()),
        text=_text_tower(clip),
        tokenizer=open_clip.SimpleTokenizer(context_length=model_cfg["text_cfg"]["context_length"]),
        mean=tuple(config.preprocess["mean"]),
        std=tuple(config.preprocess["std"]),
        defaults=Defaults(**config.defaults),
        options=config.options,
        known_tokens=rows,
    )
