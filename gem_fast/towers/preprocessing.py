"""How a model's images were prepared in training, as configurations of open_clip and of Hugging Face say."""

import math
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ModelError, shown

# Of CLIP's images, as OpenAI published them.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocessing:
    """Of images in training: normalisation of pixels in 0..1, the shorter side if it is known, and the resampling."""

    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD
    size: int | None = None
    interpolation: str = "bicubic"


CLIP_IMAGES = Preprocessing()
HALVED_IMAGES = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PE_IMAGES = replace(HALVED_IMAGES, interpolation="bilinear")
_PILLOW = {2: "bilinear", 3: "bicubic"}


def of_open_clip(config: dict[str, Any], model_cfg: dict[str, Any], label: str) -> Preprocessing:
    """Of a `preprocess_cfg`; what it leaves out is CLIP's, and the size the model's."""
    images = _checked(config.get("mean"), config.get("std"), config.get("size"), model_cfg, label)
    return replace(images, interpolation=_interpolation(config.get("interpolation") or "bicubic", label))


def of_hugging_face(config: dict[str, Any], model_cfg: dict[str, Any], label: str) -> Preprocessing:
    """Of a `preprocessor_config.json`."""
    scale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    if not isinstance(scale, (int, float)) or not 0.999 < scale * 255 < 1.001:
        raise ModelError(f"{label}: its images are scaled by {shown(scale)}, not by 1/255")
    mean, std = config.get("image_mean"), config.get("image_std")
    if not config.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    size = config.get("crop_size") if config.get("do_center_crop") else config.get("size")
    resample = config.get("resample", 3)
    images = _checked(mean, std, size, model_cfg, label)
    kind = _PILLOW.get(resample, resample) if isinstance(resample, int) else resample
    return replace(images, interpolation=_interpolation(kind, label))


def _interpolation(kind: Any, label: str) -> str:
    if kind not in _PILLOW.values():
        raise ModelError(f"{label}: its images are resized by {shown(kind)}; bicubic and bilinear are known")
    return str(kind)


def _checked(mean: Any, std: Any, size: Any, model_cfg: dict[str, Any], label: str) -> Preprocessing:
    try:
        means = _MEAN if mean is None else tuple(map(float, mean))
        deviations = _STD if std is None else tuple(map(float, std))
        side = _side(size if size is not None else model_cfg["vision_cfg"].get("image_size", 224))
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ModelError(f"{label}: its mean, std or size are no numbers") from error
    finite = all(map(math.isfinite, (*means, *deviations)))
    if len(means) != 3 or len(deviations) != 3 or not finite or min(deviations) <= 0:
        raise ModelError(f"{label}: mean and std must be three numbers, got {shown(means)} and {shown(deviations)}")
    if not 0 < side < 1 << 16:
        raise ModelError(f"{label}: its images have a size of {side}")
    return Preprocessing(means, deviations, side)


def _side(size: Any) -> int:
    if isinstance(size, dict):
        size = size.get("shortest_edge") or [size["height"], size["width"]]
    return int(min(size)) if isinstance(size, (list, tuple)) else int(size)
