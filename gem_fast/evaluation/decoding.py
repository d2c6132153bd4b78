"""From the scores of words to the labels of a data set. Needs no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..windows import Axis, Layout, WindowDecoder
from .metrics import IGNORED
from .protocols import Protocol

if TYPE_CHECKING:
    from ..decoding import Decoder


@dataclass(frozen=True)
class LabelRule:
    """How words' scores become labels.

    Attributes:
        labels: that each word stands for, `[T]`.
        background: label 0 is what no class names.
        threshold: probability below which a pixel is label 0, where there is a background.
        logit_scale: multiplier of the cosine before the softmax over words.
        area_threshold: see `Protocol`.
    """

    labels: np.ndarray
    background: bool
    threshold: float
    logit_scale: float
    area_threshold: float | None = None

    def apply(
        self,
        scores: np.ndarray,
        decoder: "Decoder",
        layout: Layout | None,
        shape: tuple[int, int],
        size: tuple[int, int],
    ) -> np.ndarray:
        """Labels `[H, W]` int32 at a size of scores `[T, h, w]`.

        Args:
            scores, decoder: as `Segmentation` has them.
            layout: windows that they are of, or None.
            shape: height and width of the input in pixels.
            size: height and width of the labels.
        """
        count = len(self.labels)
        words, confidence = decoder.labels(scores, count, size, self.logit_scale, 0.0)
        found = self.labels[words.astype(np.int64) - 1]
        if self.area_threshold is not None:
            kept = self._large(found)
            if not kept[np.unique(found)].all():
                whole = layout or Layout(*(Axis(n, n, n, n // g) for n, g in zip(shape, scores.shape[1:], strict=True)))
                found, confidence = self._among(scores, WindowDecoder(whole), size, kept)
        if self.background:
            found[confidence < self.threshold] = 0
        return found

    def _large(self, found: np.ndarray) -> np.ndarray:
        """Which labels cover more than the threshold's share of the pixels that are no background; that one always."""
        first = 1 if self.background else 0
        counts = np.bincount(found.ravel(), minlength=int(self.labels.max()) + 1)
        large = counts > (self.area_threshold or 0) * counts[first:].sum()
        large[:first] = True
        return large

    def _among(
        self, scores: np.ndarray, decoder: WindowDecoder, size: tuple[int, int], kept: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels and probabilities where only some labels may win, in the softmax over all words.

        Where none may, pixels are background; without one they are of no class.
        """
        found = np.full(size, 0 if self.background else IGNORED, np.int32)
        confidence = np.zeros(size, np.float32)
        allowed = np.flatnonzero(kept[self.labels])
        if not len(allowed):
            return found, confidence
        for place, tile in decoder.tiles(scores, size):
            logits = tile * np.float32(self.logit_scale)
            most = logits.max(0)
            best = logits[allowed].argmax(0)
            found[place] = self.labels[allowed[best]]
            own = np.take_along_axis(logits[allowed], best[None], 0)[0]
            confidence[place] = np.exp(own - most) / np.exp(logits - most).sum(0)
        return found, confidence


def label_rule(labels: list[int], background: bool, steps: Protocol, scale: float, threshold: float) -> LabelRule:
    return LabelRule(np.array(labels, np.int32), background, threshold, scale, steps.area_threshold)
