"""How well label maps agree with the truth over a data set: sums of areas, then shares of them. Needs no torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np

IGNORED = -1  # label of pixels that count nowhere


@dataclass(frozen=True, eq=False)
class Areas:
    """Pixels of each class, over any number of images; those of two add up.

    Attributes:
        both: `[C]` int64, pixels that are the class and are labelled so.
        labelled: `[C]`, pixels that are labelled so.
        truth: `[C]`, pixels that are the class.
    """

    both: np.ndarray
    labelled: np.ndarray
    truth: np.ndarray

    def __add__(self, other: "Areas") -> "Areas":
        return Areas(self.both + other.both, self.labelled + other.labelled, self.truth + other.truth)

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, NaN where it is in neither: mmsegmentation's definition."""
        return _share(self.both, self.labelled + self.truth - self.both)

    @property
    def miou(self) -> float:
        """Mean over the classes that are in either; NaN if none is."""
        return _mean(self.iou)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of each class's pixels that are labelled so, NaN where it has none."""
        return _share(self.both, self.truth)

    @property
    def mean_accuracy(self) -> float:
        return _mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """Share of all pixels that are labelled right."""
        return float(_share(self.both.sum(), self.truth.sum()))

    @property
    def frequency_weighted_iou(self) -> float:
        """The classes' intersections over unions, weighted by their shares of all pixels."""
        total = self.truth.sum()
        return float(np.nansum(self.truth / total * self.iou)) if total else float("nan")


def areas(labels: np.ndarray, truth: np.ndarray, classes: int) -> Areas:
    """Areas of one image.

    Args:
        labels: of each pixel; what is not in 0..classes-1 is no class, and counts as wrong where there is one.
        truth: the right ones, of the same shape; pixels out of 0..classes-1 count nowhere.
        classes: how many there are.

    Raises:
        ValueError: the shapes differ.
    """
    if labels.shape != truth.shape:
        raise ValueError(f"labels are {labels.shape} and the truth is {truth.shape}; they must be of one shape")
    valid = (truth >= 0) & (truth < classes)
    labels, truth = labels[valid], truth[valid]
    return Areas(
        _counts(truth[labels == truth], classes),
        _counts(labels[(labels >= 0) & (labels < classes)], classes),
        _counts(truth, classes),
    )


def total(parts: Iterable[Areas]) -> Areas:
    """The sum of one or more."""
    return reduce(Areas.__add__, parts)


def _counts(values: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(values, minlength=classes).astype(np.int64)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Their ratio, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
