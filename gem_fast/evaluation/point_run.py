"""One model on points of photographs: each class of an image by its own heat map, to a row of a table."""

from collections import defaultdict
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from ..batch.progress import Progress
from ..batch.work import timed
from ..batch.workers import Seconds
from ..images import ImageLike
from ..prompts import TextClass
from .journal import Counts, Journal, version_of
from .loop import Evaluation, Held, Measuring, Running, measured, number, versions
from .open_images import Pointed, PointSet
from .points import MAP_THRESHOLD, Hits, hits, readings
from .protocols import POINT_STEPS, Protocol

if TYPE_CHECKING:
    from ..decoding import Decoder
    from ..query import Query
    from ..segmenter import Segmenter


@dataclass(frozen=True)
class Points(Measuring):
    """Hits of an image's points: a row for each of its classes, in their order.

    Attributes:
        rows: each word's place in `words`.
        words: unit embeddings `[T, E]` float32. Scores are an image's features, as `axes_query` has them, so that each
            image is asked for its own words alone.
    """

    points: PointSet
    rows: dict[str, int]
    words: np.ndarray

    def labels(self) -> list[str]:
        return [str(each.path) for each in self.points.images]

    def image(self, index: int) -> ImageLike:
        return self.points.images[index].path

    def counts(self, held: Held, scores: np.ndarray, decoder: "Decoder", seconds: Seconds) -> Counts:
        height, width = held.size
        found = []
        with timed("decode scores", seconds):
            for word, (places, yes) in self.points.images[held.index].points.items():
                cosines = np.tensordot(self.words[self.rows[word]], scores, 1)[None]
                heatmap = decoder.heatmaps(cosines, held.size)[0]
                columns = np.minimum((places[:, 0] * width).astype(int), width - 1)
                rows = np.minimum((places[:, 1] * height).astype(int), height - 1)
                one = hits(word, heatmap[rows, columns] >= MAP_THRESHOLD, yes)
                found.append([one.found, one.wrong, one.missed, one.left])
        return found


def evaluate_points(model: "Segmenter", points: PointSet, steps: Protocol, **running: Any) -> Evaluation:
    """p-mIoU of a model: each class of an image by its own heat map, stretched to 0..1, from 0.5 on.

    The row's `miou` is the reading `image`, and `readings` has all four.

    Args:
        model: an engine, whose scores are cosines.
        points: from `open_points`.
        steps: a protocol, of which size, windows and templates count.
        **running: fields of `Running`.

    Raises:
        ValueError: a setting is wrong.
    """
    runs = Running(**running)
    progress = runs.progress or Progress()
    if model.feature_surgery:
        raise ValueError("points are read by the cosine of each class alone: load the model without feature_surgery")
    windows = model.windows(steps.window, steps.stride)
    model.check_input(steps.size, steps.resize, windows)
    listed = sorted({word for each in points.images for word in each.points})
    asked = model.query(listed, templates=steps.templates)
    embeddings = asked.words if isinstance(asked.words, np.ndarray) else asked.words.float().cpu().numpy()
    work = Points(model, steps, windows, points, {word: row for row, word in enumerate(listed)}, embeddings)
    settings = {
        **{step: getattr(steps, step) for step in POINT_STEPS},
        "size": steps.size or model.defaults.size,
        "map_threshold": MAP_THRESHOLD,
        "batch_size": runs.batch_size,
        **{name: value for name, value in model.identity().items() if name != "model"},
    }
    question = {"data": points.name, "settings": settings, "model": model.name}
    kept = Journal(runs.journal, question, [_fingerprint(each) for each in points.images], 4)
    done, failures = measured(work, axes_query(asked), kept, progress, runs)
    found = [
        [Hits(word, *counts) for word, counts in zip(points.images[index].points, rows, strict=True)]
        for index, rows in done.items()
    ]
    by_class: dict[str, list[Hits]] = defaultdict(list)
    for one in (one for image in found for one in image):
        by_class[one.name].append(one)
    values = {name: number(value) for name, value in readings(found).items()}
    row = {
        "data": points.name,
        "model": model.name,
        "method": runs.method,
        "protocol": steps.name,
        "settings": settings,
        "images": len(found),
        "miou": values["image"],
        "pixel_accuracy": None,
        "mean_accuracy": None,
        "frequency_weighted_iou": None,
        "readings": values,
        "per_class": {name: number(readings([each])["image"]) for name, each in sorted(by_class.items())},
        "images_per_second": progress.images_per_second if progress.done else None,
        "versions": versions(),
    }
    return Evaluation(row, tuple(failures))


def axes_query(asked: "Query") -> "Query":
    """A query whose scores are the features themselves: its words are the axes of the embedding.

    Cosines are linear in the features, over windows too, so that those with an image's own words can follow.
    """
    axes = np.eye(asked.words.shape[1], dtype=np.float32)
    words = axes if isinstance(asked.words, np.ndarray) else asked.words.new_tensor(axes)
    return replace(asked, classes=tuple(TextClass(str(i), (str(i),)) for i in range(len(axes))), words=words)


def _fingerprint(image: Pointed) -> str:
    """Of a photograph's file, words and points."""
    digest = sha256(repr(version_of(image.path)).encode())
    for word, (places, yes) in image.points.items():
        digest.update(f"{word}\0".encode() + places.tobytes() + yes.tobytes())
    return digest.hexdigest()
