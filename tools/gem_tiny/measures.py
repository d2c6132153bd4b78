"""What is measured of the engine on scenes with known masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from gem_fast import GemModel, Segmentation
from gem_fast.preprocess import to_pixels
from gem_fast.scores import score_patches

from .holdout import Scene

BATCH = 25


@dataclass(frozen=True, slots=True)
class Localisation:
    """Figures of one path over a set of scenes, each 0..1."""

    iou: float
    """Mean over objects of the IoU of the object's visible pixels and its prompt's min-max heat map above 0.5."""
    iou_several: float
    """The same over the objects of scenes with two or three of them."""
    right_word: float
    """Share of object pixels in two-object scenes where the object's word beats the other object's."""


def segmentations(
    model: GemModel, scenes: list[Scene], size: int, path: str = "patches", extra: list[list[str]] | None = None
) -> Iterator[Segmentation]:
    """Each scene segmented by its own nouns (and `extra` ones); `path` is `patches` (GEM) or `original_patches`."""
    for start in range(0, len(scenes), BATCH):
        images = [image for image, _ in scenes[start : start + BATCH]]
        pixels = _pixels(model, images, size)
        patches = model.features(pixels) if path == "patches" else getattr(model.features(pixels, original=True), path)
        for offset, image in enumerate(images):
            names = [*scenes[start + offset][1], *(extra[start + offset] if extra else [])]
            scores = score_patches(patches[offset][None], model.encode_text(names), [1] * len(names))[0]
            yield Segmentation(image, tuple(names), scores, threshold=0.0, logit_scale=100.0, decoder=model.decoder)


def _pixels(model: GemModel, images: list[Image.Image], size: int) -> torch.Tensor:
    return torch.stack([to_pixels(image, (size, size), model.mean, model.std) for image in images])


def iou(predicted: np.ndarray, mask: np.ndarray) -> float:
    return float((predicted & mask).sum() / max(1, (predicted | mask).sum()))


def localisation(model: GemModel, scenes: list[Scene], size: int, path: str = "patches") -> Localisation:
    """Every object's heat map against its mask, and the words of two-object scenes against each other."""
    ious: list[float] = []
    several: list[float] = []
    right: list[np.ndarray] = []
    for result, (_, masks) in zip(segmentations(model, scenes, size, path), scenes, strict=True):
        values = [iou(heat >= 0.5, mask) for heat, mask in zip(result.heatmaps, masks.values(), strict=True)]
        ious += values
        several += values if len(masks) > 1 else []
        if len(masks) == 2:
            right += [result.labels[mask] == k for k, mask in enumerate(masks.values(), 1)]
    return Localisation(float(np.mean(ious)), float(np.mean(several)), float(np.concatenate(right).mean()))


def zero_shot(model: GemModel, scenes: list[Scene], size: int, nouns: list[str]) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of the image embedding over all nouns, for scenes of a single object."""
    words = model.encode_text(nouns)
    hits = []
    for start in range(0, len(scenes), BATCH):
        chunk = scenes[start : start + BATCH]
        features = model.features(_pixels(model, [image for image, _ in chunk], size), original=True)
        truth = torch.tensor([[nouns.index(next(iter(masks)))] for _, masks in chunk])
        assert features.original_class is not None
        hits.append((features.original_class @ words.T).topk(5).indices == truth)
    hit = torch.cat(hits).float()
    return float(hit[:, 0].mean()), float(hit.sum(-1).mean())
