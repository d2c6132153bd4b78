"""The result for one image: scores, heat maps and labels, computed when asked for, and written to files.

Needs no torch: each engine brings the decoder of its own arrays.
"""

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .decoding import Decoder, is_alone, label_type
from .outputs import wanted_kinds
from .rendering import blend_heatmap, blend_labels, label_counts, label_names, legend, palette
from .writing import write_whole


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What GEM says about one image.

    Attributes:
        image: the original image, RGB.
        classes: names of the P classes; class i has the label i + 1, and 0 is background.
        all_scores: cosine of each patch with each class and then each background class, `[P + Q, h, w]`: a tensor on
            the model's device, or an array that `decoder` takes.
        threshold: confidence below which a pixel is background.
        logit_scale: multiplier of the cosine before the softmax over classes.
        decoder: turns scores into labels and heat maps.
        source: the file, if the image came from one.
        label_size: height and width of labels and heat maps, by default the image's.
    """

    image: Image.Image
    classes: tuple[str, ...]
    all_scores: Any = field(repr=False)
    threshold: float
    logit_scale: float
    decoder: Decoder = field(repr=False)
    source: str | None = None
    label_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of labels and heat maps in pixels: those of the original image, unless others were asked."""
        return self.label_size or (self.image.height, self.image.width)

    @property
    def scores(self) -> np.ndarray:
        """Raw cosine scores at patch resolution, `[P, h, w]` float32, in a new array at each access."""
        return np.array(self.decoder.scores(self.all_scores[: len(self.classes)]))

    @property
    def heatmaps(self) -> np.ndarray:
        """Heat maps of all prompts at the image's size, `[P, H, W]` float32 in 0..1, each stretched by itself.

        Computed at each access: 4 bytes × P × H × W. For one prompt of many take `heatmap(prompt)`.
        """
        return self.decoder.heatmaps(self.all_scores[: len(self.classes)], self.size)

    def heatmap(self, prompt: str) -> np.ndarray:
        """Heat map of one class by its name, `[H, W]` float32 in 0..1; KeyError if there is no such class."""
        if prompt not in self.classes:
            raise KeyError(f"{prompt!r} is not among the classes: {', '.join(self.classes)}")
        index = self.classes.index(prompt)
        return self.decoder.heatmaps(self.all_scores[index : index + 1], self.size)[0]

    @cached_property
    def _decoded(self) -> tuple[np.ndarray, np.ndarray]:
        return self._decode(self.size)

    def _decode(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Labels and confidences `[H, W]` at any size."""
        classes = len(self.classes)
        if is_alone(len(self.all_scores)):
            confidence = self.decoder.heatmaps(self.all_scores, size)[0]
            return (confidence >= self.threshold).astype(label_type(classes)), confidence
        return self.decoder.labels(self.all_scores, classes, size, self.logit_scale, self.threshold)

    @property
    def labels(self) -> np.ndarray:
        """Label of each pixel, `[H, W]`, uint8, or uint16 from 256 classes on; 0 is background."""
        return self._decoded[0]

    @property
    def confidence(self) -> np.ndarray:
        """Confidence of each pixel's best class, `[H, W]` float32: the softmax over classes and background classes.

        A single prompt without any background class has nothing to compete with; there it is the heat map.
        """
        return self._decoded[1]

    def areas(self) -> dict[str, float]:
        """Share of the image that each class that appears covers, that of label 0 among them."""
        counts = label_counts(self.labels, len(self.classes) + 1).tolist()
        named = zip(label_names(self.classes), counts, strict=True)
        return {name: count / self.labels.size for name, count in named if count}

    def legend(self) -> dict[str, dict[str, str]]:
        """Name and colour of each label."""
        return legend(self.classes)

    def overlay(self, prompt: str | None = None) -> Image.Image:
        """The labels in colours over the image with a legend below, or one prompt's heat map; KeyError as `heatmap`."""
        size = self.image.height, self.image.width
        if prompt is None:
            return blend_labels(self.image, self._shown_labels(size), self.classes)
        return blend_heatmap(self.image, replace(self, label_size=size).heatmap(prompt), prompt)

    def _shown_labels(self, size: tuple[int, int]) -> np.ndarray:
        """Labels at another size: of those that there are the nearest, where they are more."""
        if size == self.size:
            return self.labels
        if size[0] > self.size[0] or size[1] > self.size[1]:
            return self._decode(size)[0]
        return np.asarray(Image.fromarray(self.labels).resize(size[::-1], Image.Resampling.NEAREST))

    def label_image(self) -> Image.Image:
        """The labels as an image: a palette of the legend's colours, or 16-bit grey from 256 classes on."""
        picture = Image.fromarray(self.labels)
        if self.labels.dtype == np.uint8:
            picture.putpalette(palette(256).ravel().tolist())
        return picture

    def save(
        self, folder: str | os.PathLike, stem: str | None = None, *, overlay: bool = True, heatmaps: bool = False
    ) -> dict[str, Path]:
        """Write the label image with its legend, the overlay unless it is not wanted, and, if asked for, the heat maps.

        Args:
            folder: where to write; made if missing.
            stem: start of the file names, possibly with folders; by default that of the source, or `image`.
            overlay: also write the overlay, which takes several times as long as the labels.
            heatmaps: also write a compressed `.npz` with `heatmaps` [P, H, W] float16, `scores` and `classes`.

        Returns:
            Files by kind: `labels`, `legend`, perhaps `overlay` and `heatmaps`. Each appears whole or not at all.
        """
        stem = stem or (Path(self.source).stem if self.source else "image")
        kinds = wanted_kinds(overlay="png" if overlay else None, heatmaps=heatmaps)
        contents = {kind: kind.content(self) for kind in kinds}
        paths = {}
        for kind, content in contents.items():
            paths[kind.name] = Path(folder) / f"{stem}{kind.ending}"
            write_whole(paths[kind.name], content)
        return paths


class Labelled(Segmentation):
    """A result of which an engine gave the labels alone, at their size, in place of the scores."""

    @property
    def _decoded(self) -> tuple[np.ndarray, np.ndarray]:
        return self.all_scores, np.empty(0, np.float32)
