"""What images are asked for: prompts as embeddings, and how scores are judged. Needs no torch."""

import math
from dataclasses import dataclass
from typing import Any

from PIL import Image

from .decoding import Decoder
from .numbers import number
from .prompts import TextClass
from .rendering import legend
from .segmentation import Labelled, Segmentation


@dataclass(frozen=True, eq=False)
class Query:
    """What images are asked for. Made by `Segmenter.query`.

    Attributes:
        classes: what is looked for; class i has the label i + 1.
        background: what else the images may show; where it wins, the label is 0.
        words: unit embeddings of all their words, `[T, E]`, the synonyms of a class next to each other.
        templates: the sentences that the words were put into.
        threshold: confidence below which a pixel is background.
        logit_scale: multiplier of the cosine before the softmax over classes.
    """

    classes: tuple[TextClass, ...]
    background: tuple[TextClass, ...]
    words: Any
    templates: tuple[str, ...]
    threshold: float
    logit_scale: float

    @property
    def groups(self) -> list[int]:
        """Number of words of each class and then of each background class."""
        return [len(each.synonyms) for each in (*self.classes, *self.background)]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each.name for each in self.classes)

    def legend(self) -> dict[str, dict[str, str]]:
        """Name and colour of each label."""
        return legend(self.names)

    def result(
        self,
        image: Image.Image,
        scores: Any,
        decoder: Decoder,
        source: str | None = None,
        label_size: tuple[int, int] | None = None,
    ) -> Segmentation:
        """What the scores of an image, `[P + Q, h, w]`, say about it."""
        return Segmentation(image, self.names, scores, self.threshold, self.logit_scale, decoder, source, label_size)

    def labelled(self, image: Image.Image, labels: Any, decoder: Decoder, source: str | None) -> Segmentation:
        """The result of an image whose labels `[H, W]` an engine has decoded already."""
        settings = self.threshold, self.logit_scale, decoder, source, labels.shape
        return Labelled(image, self.names, labels, *settings)


def score_settings(threshold: Any, logit_scale: Any, usual: tuple[float, float]) -> tuple[float, float]:
    """Threshold and logit scale as plain numbers, the usual ones for None.

    Raises:
        ValueError: no image could be segmented with one of them.
    """
    threshold, logit_scale = (
        own if given is None else given for given, own in zip((threshold, logit_scale), usual, strict=True)
    )
    return (
        number("threshold", threshold, "in 0..1", lambda x: 0 <= x <= 1),
        number("logit_scale", logit_scale, "positive", lambda x: 0 < x < math.inf),
    )
