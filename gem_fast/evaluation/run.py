"""One model on one data set by one protocol: labels of every pixel, to a row of a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..batch.progress import Progress
from ..batch.work import timed
from ..batch.workers import Seconds
from ..images import ImageLike
from .decoding import LabelRule, label_rule
from .journal import Counts, Journal, version_of
from .labelled import Dataset, check_label_size
from .loop import Evaluation, Held, Measuring, Running, measured, number, versions
from .metrics import Areas, areas
from .protocols import Protocol, words_of

if TYPE_CHECKING:
    from ..decoding import Decoder
    from ..segmenter import Segmenter


@dataclass(frozen=True)
class LabelMaps(Measuring):
    """Areas of an image's labels, of each variant in turn: rows of a class and its three areas."""

    dataset: Dataset
    rule: LabelRule
    variants: int = 1

    def labels(self) -> list[str]:
        return [self.dataset.label(index) for index in range(len(self.dataset.images))]

    def image(self, index: int) -> ImageLike:
        return self.dataset.images[index]

    def files(self) -> list[Any]:
        """What each image and its labels are, which may change under their names; of scenes their places."""
        pairs = zip(self.labels(), self.dataset.truths, strict=True)
        return [[version_of(image), version_of(truth) if isinstance(truth, Path) else truth] for image, truth in pairs]

    def check(self, index: int, size: tuple[int, int]) -> None:
        check_label_size(self.dataset, index, size)

    def counts(self, held: Held, scores: np.ndarray, decoder: "Decoder", seconds: Seconds) -> Counts:
        with timed("read", seconds):
            truth = self.dataset.truth(held.index)
        with timed("decode scores", seconds):
            found = [
                areas(self.rule.apply(own, decoder, held.layout, held.shape, held.size), truth, self.classes)
                for own in np.split(scores, self.variants)
            ]
        parts = np.hstack([(each.both, each.labelled, each.truth) for each in found])
        return [[int(label), *parts[:, label].tolist()] for label in np.flatnonzero(parts.any(0))]

    @property
    def classes(self) -> int:
        return len(self.dataset.classes)


def evaluate(model: "Segmenter", dataset: Dataset, steps: Protocol, **running: Any) -> Evaluation:
    """Evaluate a model on a data set.

    Args:
        model: an engine.
        dataset: from `open_data`.
        steps: a protocol as it is for this set: `PROTOCOLS[name].of(dataset.kind, ...)`.
        **running: fields of `loop.Running`: `method`, `progress`, `journal`, `batch_size` and `workers`.

    Raises:
        ValueError: a setting is wrong.
    """
    (only,) = evaluate_variants(model, dataset, steps, **running)
    return only


def evaluate_variants(
    model: "Segmenter", dataset: Dataset, steps: Protocol, *, variants: Sequence[str] = ("",), **running: Any
) -> list[Evaluation]:
    """As `evaluate`, with several settings at once.

    Args:
        variants: names of those whose scores the model gives in turn, as `sweep.SweptModel` does.
    """
    runs = Running(**running)
    progress = runs.progress or Progress()
    words = words_of(dataset, steps)
    query = model.query(
        {f"{place} {word}": [word] for place, (_, word) in enumerate(words * len(variants))},
        templates=steps.templates,
        logit_scale=steps.logit_scale,
        threshold=steps.threshold,
    )
    windows = model.windows(steps.window, steps.stride)
    model.check_input(steps.size, steps.resize, windows)
    rule = label_rule([label for label, _ in words], dataset.background, steps, query.logit_scale, query.threshold)
    settings = {
        **steps.settings(),
        "size": steps.size or model.defaults.size,
        "logit_scale": query.logit_scale,
        "threshold": query.threshold if dataset.background else None,
        "background_words": steps.background_words if dataset.background else None,
        "batch_size": runs.batch_size,
        **{name: value for name, value in model.identity().items() if name != "model"},
    }
    work = LabelMaps(model, steps, windows, dataset, rule, len(variants))
    asked = {"data": dataset.name, "words": words, "variants": list(variants)}
    question = {**asked, "settings": settings, "model": model.name}
    found, failures = measured(work, query, Journal(runs.journal, question, work.files(), 4), progress, runs)
    summed = np.zeros((3, work.classes * len(variants)), np.int64)
    for counts in found.values():
        for label, *own in counts:
            summed[:, label] += own
    common = {
        "data": dataset.name,
        "model": model.name,
        "method": runs.method,
        "protocol": steps.name,
        "images": len(found),
        "images_per_second": progress.images_per_second if progress.done else None,
    }
    names = [each.name for each in dataset.classes]
    rows = (
        common | {"settings": settings | ({"sweep": variant} if variant else {})} | _figures(Areas(*own), names)
        for variant, own in zip(variants, np.split(summed, len(variants), axis=1), strict=True)
    )
    return [Evaluation(row, tuple(failures)) for row in rows]


def _figures(summed: Areas, names: list[str]) -> dict[str, Any]:
    """A row's figures."""
    return {
        "miou": number(summed.miou),
        "pixel_accuracy": number(summed.pixel_accuracy),
        "mean_accuracy": number(summed.mean_accuracy),
        "frequency_weighted_iou": number(summed.frequency_weighted_iou),
        "per_class": {name: number(value) for name, value in zip(names, summed.iou.tolist(), strict=True)},
        "versions": versions(),
    }
