"""p-mIoU over points that people said yes or no to, in the four readings of the paper's words. Needs no torch."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

MAP_THRESHOLD = 0.5  # the paper's, of a heat map that is stretched to 0..1
READINGS = {
    "image": "per image, the points of all its classes pooled: TP / (TP + FP + FN); mean over images",
    "image-class": "the same for each class of each image; mean over all of these",
    "both-sides": "for each class of each image, the mean of that and of TN / (TN + FN + FP); mean over all of these",
    "class": "the same as image, for each class over all images; mean over classes",
}


@dataclass(frozen=True)
class Hits:
    """Points of one class in one image: said yes and found, found alone, missed, and rightly left out."""

    name: str
    found: int
    wrong: int
    missed: int
    left: int

    @property
    def union(self) -> int:
        return self.found + self.wrong + self.missed


def hits(name: str, found: np.ndarray, yes: np.ndarray) -> Hits:
    """What a mask says at points, `found`, against what people say, `yes`, both bool `[N]`."""
    counts = (found & yes, found & ~yes, ~found & yes, ~found & ~yes)
    return Hits(name, *(int(each.sum()) for each in counts))


def readings(images: Iterable[Iterable[Hits]]) -> Mapping[str, float]:
    """p-mIoU by the names of `READINGS`, of the classes of each image; NaN without any."""
    pooled, single, sides = [], [], []
    by_class: dict[str, list[Hits]] = defaultdict(list)
    for image in images:
        classes = list(image)
        pooled.append(_iou(classes))
        for each in classes:
            by_class[each.name].append(each)
            single.append(_iou([each]))
            rest = each.left + each.wrong + each.missed
            ends = [single[-1], each.left / rest if rest else float("nan")]
            sides.append(_mean(ends))
    values = (pooled, single, sides, [_iou(each) for each in by_class.values()])
    return {name: _mean(each) for name, each in zip(READINGS, values, strict=True)}


def _iou(classes: list[Hits]) -> float:
    union = sum(each.union for each in classes)
    return sum(each.found for each in classes) / union if union else float("nan")


def _mean(values: list[float]) -> float:
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else float("nan")
