"""Folders that describe a model beside its weights: open_clip's and Hugging Face's."""

import json
import os.path
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError, shown
from .blip_config import BLIP, blip_config
from .hugging_face import KINDS as CLIPS
from .hugging_face import open_clip_config
from .preprocessing import Preprocessing, of_hugging_face, of_open_clip
from .siglip_config import KINDS as SIGLIPS
from .siglip_config import SIGLIP, siglip_config, siglip_images

_OURS = (BLIP, SIGLIP)  # keys of configs made here, with what is checked as it is made
_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model.pth",
    "model.pth",
)
_MOST_CONFIG = 1 << 20
_DEEPEST = 32  # lists and objects of a configuration in one another


@dataclass(frozen=True)
class Described:
    """A model as a folder describes it.

    Attributes:
        model_cfg: as open_clip has it.
        preprocessing: how its images were prepared in training.
        folder: where its weights are.
    """

    model_cfg: dict[str, Any]
    preprocessing: Preprocessing
    folder: Path


def describes_a_model(folder: Path) -> bool:
    return any(os.path.isfile(folder / name) for name in ("open_clip_config.json", "config.json"))


def read_folder(folder: Path, label: str) -> Described:
    """What a folder with `open_clip_config.json`, or with Hugging Face's `config.json`, says of its model.

    Raises:
        ModelError: there is none, or it can't be used; the message begins with the label.
    """
    if not folder.is_dir():
        raise ModelError(f"{label}: there is no folder {folder}")
    if (folder / "open_clip_config.json").is_file():
        config = read_config(folder / "open_clip_config.json", label)
        model_cfg = config.get("model_cfg")
        if not isinstance(model_cfg, dict) or not _is_clip(model_cfg):
            raise ModelError(f"{label}: its open_clip_config.json has no model_cfg of a CLIP")
        images = config.get("preprocess_cfg")
        preprocessing = of_open_clip(images if isinstance(images, dict) else {}, model_cfg, label)
        return Described(model_cfg, preprocessing, folder)
    if (folder / "config.json").is_file():
        model_cfg = _of_hugging_face(folder, label)
        images = read_config(folder / "preprocessor_config.json", label)
        newer = read_config(folder / "processor_config.json", label).get("image_processor")
        images = images or (newer if isinstance(newer, dict) else {})
        images = {name: value for name, value in images.items() if value is not None}  # the processor's default
        images = siglip_images(images, model_cfg) if SIGLIP in model_cfg else images
        return Described(model_cfg, of_hugging_face(images, model_cfg, label), folder)
    raise ModelError(f"{label}: {folder} has neither open_clip_config.json nor Hugging Face's config.json")


def _of_hugging_face(folder: Path, label: str) -> dict[str, Any]:
    """The model config of a folder with Hugging Face's `config.json`."""
    config = read_config(folder / "config.json", label)
    kind = config.get("model_type")
    if kind == BLIP:
        return blip_config(config, label)
    if kind not in (*CLIPS, *SIGLIPS):
        known = ", ".join((*CLIPS, *SIGLIPS))
        raise ModelError(f"{label}: its config.json is of a {shown(kind)} model; {known} and {BLIP} are known")
    tokenizer = read_config(folder / "tokenizer_config.json", label)
    return (open_clip_config if kind in CLIPS else siglip_config)(config, tokenizer, label)


def _is_clip(model_cfg: dict[str, Any]) -> bool:
    towers = (model_cfg.get("vision_cfg"), model_cfg.get("text_cfg"))
    ours = any(key in model_cfg for key in _OURS)
    return "embed_dim" in model_cfg and all(isinstance(tower, dict) for tower in towers) and not ours


def find_weights(folder: Path, label: str) -> Path:
    """The file of weights in a folder: by its usual name, or the only one."""
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for ending in ("safetensors", "bin", "pt", "pth") for path in folder.glob(f"*.{ending}"))
    if len(found) == 1:
        return found[0]
    several = f"; it has {', '.join(path.name for path in found[:5])}: give one as weights" if found else ""
    raise ModelError(f"{label}: there is no file of weights of a usual name in {folder}{several}")


def named_folders(name: str, places: Sequence[Path]) -> Iterator[Path]:
    """The places, and below each the folder that a config names; what it names elsewhere is not followed."""
    for place in places:
        below = (place / name).resolve()
        if os.path.isdir(below) and below.is_relative_to(place.resolve()):
            yield below
        yield place


def read_config(path: Path, label: str) -> dict[str, Any]:
    """A JSON file, or nothing if there is none."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MOST_CONFIG:
            raise ValueError(f"it has more than {_MOST_CONFIG >> 20} MB")
        config = json.loads(path.read_text())
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object")
        _check_values(config)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{label}: its {path.name} can't be read: {str(error)[:100]}") from error
    return config


def _check_values(value: Any, depth: int = 0) -> None:
    """ValueError for what readers of a configuration can't copy or print: deep nesting, and letters that are none."""
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        value.encode()
    inner = (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        _check_values(each, depth + 1)
