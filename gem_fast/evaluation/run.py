"""One model on one data set by one protocol: through the batch pipeline, image by image, to a row of a table."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..batch.options import BatchOptions
from ..batch.pipeline import Limits, Pipeline
from ..batch.processes import in_threads
from ..batch.progress import Progress
from ..batch.sources import Source
from ..batch.work import timed
from ..batch.workers import Failure, Seconds, cores
from ..images import MAX_PIXELS, MAX_WINDOWED_PIXELS, load_image
from ..windows import Layout, WindowDecoder, Windows
from .datasets import Dataset, checked_truth
from .decoding import LabelRule, label_rule
from .metrics import Areas, areas, total
from .protocols import Protocol, words_of

if TYPE_CHECKING:
    from ..query import Query
    from ..segmenter import Segmenter


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        row: as `--json` has it.
        failures: images that could not be used, each with its reason; without them the figure is another set's.
    """

    row: dict[str, Any]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class _Held:
    """What a worker keeps of an image until its scores come."""

    index: int
    size: tuple[int, int]
    shape: tuple[int, int]
    layout: Layout | None
    nbytes: int = 0
    decoded_size: None = None


@dataclass(frozen=True)
class EvaluationWork:
    """The pipeline's work: an image to pixels, and its scores with its truth to areas, of each variant in turn."""

    model: "Segmenter"
    dataset: Dataset
    steps: Protocol
    rule: LabelRule
    windows: Windows | None
    variants: int = 1

    def prepare(self, source: Source, seconds: Seconds) -> tuple[_Held, np.ndarray, tuple[int, int]]:
        index = source.key
        with timed("read", seconds):
            picture = load_image(self.dataset.images[index], MAX_WINDOWED_PIXELS if self.windows else MAX_PIXELS)
        with timed("resize", seconds):
            size = picture.height, picture.width
            shape, layout = self.model.place(size, self.steps.size, None, self.windows)
            pixels = (self.model.window_pixels if layout else self.model.pixels)(picture, shape)
        return _Held(index, size, shape, layout), pixels, shape

    def finish(self, held: _Held, scores: np.ndarray, seconds: Seconds) -> tuple[int, Areas]:
        with timed("read", seconds):
            truth = checked_truth(self.dataset, held.index, held.size)
        with timed("decode scores", seconds):
            decoder = WindowDecoder(held.layout) if held.layout else self.model.host_decoder
            found = [
                areas(self.rule.apply(own, decoder, held.layout, held.shape, held.size), truth, self.classes)
                for own in np.split(scores, self.variants)
            ]
        parts = zip(*((each.both, each.labelled, each.truth) for each in found), strict=True)
        return held.index, Areas(*map(np.concatenate, parts))

    @property
    def classes(self) -> int:
        return len(self.dataset.classes)


class Journal:
    """Areas of images that are finished, a line each, so that an interrupted evaluation goes on."""

    def __init__(self, path: Path | None, question: dict[str, Any], count: int) -> None:
        """Open it; what it holds of other questions is left alone.

        Args:
            path: its file, or None for none.
            question: all that areas depend on.
            count: of classes.
        """
        self.path, self._count = path, count
        self._key = sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]
        self.finished = dict(self._read()) if path is not None and path.exists() else {}

    def _read(self) -> Iterator[tuple[int, Areas]]:
        assert self.path is not None
        with open(self.path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    if entry["key"] != self._key:
                        continue
                    parts = np.zeros((3, self._count), np.int64)
                    for label, *counts in entry["areas"]:
                        parts[:, label] = counts
                    yield int(entry["image"]), Areas(*parts)
                except (ValueError, KeyError, TypeError, IndexError):
                    continue  # the last line of a run that was cut off

    def keep(self, index: int, found: Areas) -> None:
        if self.path is None:
            return
        parts = np.stack([found.both, found.labelled, found.truth])
        seen = np.flatnonzero(parts.any(0))
        entry = {"key": self._key, "image": index, "areas": [[int(c), *parts[:, c].tolist()] for c in seen]}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def evaluate(
    model: "Segmenter",
    dataset: Dataset,
    steps: Protocol,
    *,
    method: str = "gem",
    progress: Progress | None = None,
    journal: Path | None = None,
    batch_size: int = 8,
    workers: int | None = None,
) -> Evaluation:
    """Evaluate a model on a data set; see `evaluate_variants`."""
    settings: dict[str, Any] = {"progress": progress, "journal": journal, "batch_size": batch_size, "workers": workers}
    (only,) = evaluate_variants(model, dataset, steps, method=method, variants=("",), **settings)
    return only


def evaluate_variants(
    model: "Segmenter",
    dataset: Dataset,
    steps: Protocol,
    *,
    method: str = "gem",
    variants: Sequence[str] = ("",),
    progress: Progress | None = None,
    journal: Path | None = None,
    batch_size: int = 8,
    workers: int | None = None,
) -> list[Evaluation]:
    """Evaluate a model on a data set, with several settings at once.

    Args:
        model: an engine.
        dataset: from `open_data`.
        steps: a protocol as it is for this set: `PROTOCOLS[name].of(data, ...)`.
        method: what the row calls the method.
        variants: names of those whose scores the model gives in turn, as `sweep.SweptModel` does.
        progress: kept up to date, for who watches it from another thread.
        journal: file that keeps what is finished of each image, so that the same evaluation goes on there.
        batch_size: images or windows in one forward.
        workers: how many read and decode beside the engine; None for one a core.

    Raises:
        ValueError: a setting is wrong.
    """
    progress = progress or Progress()
    BatchOptions(batch_size=batch_size, workers=workers)
    words = words_of(dataset, steps)
    if len(words) < 2:
        raise ValueError(f"{dataset.name} has a single class: nothing competes with it; name two or more")
    query = model.query(
        {f"{number} {word}": [word] for number, (_, word) in enumerate(words * len(variants))},
        templates=steps.templates,
        logit_scale=steps.logit_scale,
        threshold=steps.threshold,
    )
    windows = model.windows(steps.window, steps.stride)
    model.check_input(steps.size, None, windows)
    rule = label_rule([label for label, _ in words], dataset.background, steps, query.logit_scale, query.threshold)
    settings = {
        **steps.settings(),
        "size": steps.size or model.defaults.size,
        "logit_scale": query.logit_scale,
        "threshold": query.threshold if dataset.background else None,
        "batch_size": batch_size,
        **{name: value for name, value in model.identity().items() if name != "model"},
    }
    names = [each.name for each in dataset.classes]
    asked = {"data": dataset.name, "images": list(map(dataset.label, range(len(dataset.images)))), "words": words}
    question = {**asked, "settings": settings, "model": model.name, "variants": list(variants)}
    kept = Journal(journal, question, len(names) * len(variants))
    work = EvaluationWork(model, dataset, steps, rule, windows, len(variants))
    found, failures = _areas(work, query, kept, progress, batch_size, workers)
    nothing = Areas(*np.zeros((3, len(names) * len(variants)), np.int64))
    summed = total([nothing, *found])
    common = {
        "data": dataset.name,
        "model": model.name,
        "method": method,
        "protocol": steps.name,
        "images": len(found),
        "images_per_second": progress.images_per_second if progress.done else None,
    }
    parts = (np.split(each, len(variants)) for each in (summed.both, summed.labelled, summed.truth))
    rows = (
        common | {"settings": settings | ({"sweep": variant} if variant else {})} | _measured(Areas(*own), names)
        for variant, *own in zip(variants, *parts, strict=True)
    )
    return [Evaluation(row, tuple(failures)) for row in rows]


def _measured(summed: Areas, names: list[str]) -> dict[str, Any]:
    """A row's figures."""
    return {
        "miou": _number(summed.miou),
        "pixel_accuracy": _number(summed.pixel_accuracy),
        "mean_accuracy": _number(summed.mean_accuracy),
        "frequency_weighted_iou": _number(summed.frequency_weighted_iou),
        "per_class": {name: _number(value) for name, value in zip(names, summed.iou.tolist(), strict=True)},
        "versions": versions(),
    }


def _areas(
    work: EvaluationWork, query: "Query", kept: Journal, progress: Progress, batch_size: int, workers: int | None
) -> tuple[list[Areas], list[str]]:
    """Those of all images that could be used, in their order, and why others could not."""
    model, count = work.model, len(work.dataset.images)
    progress.total, progress.kept = count, len(kept.finished)
    progress.started = time.monotonic()
    limits = Limits(batch_size=batch_size, workers=workers or cores(), engines=model.engines)

    make_encode = in_threads(model, query, work.windows, batch_size)
    sources = ((i, Source(Path(work.dataset.label(i)), str(i), i)) for i in range(count) if i not in kept.finished)
    found, failures = dict(kept.finished), []
    try:
        with closing(Pipeline(work, make_encode, limits, progress).run(sources)) as results:
            for index, source, result in results:
                if isinstance(result, Failure):
                    failures.append(f"{source.path}: {result.error.removeprefix(f'{source.path}: ')}")
                    progress.count("failed", result.error)
                    continue
                found[index] = result[1]
                kept.keep(*result)
                progress.count("ok")
    finally:
        model.share_cores(1)
    return [found[index] for index in sorted(found)], failures


def versions() -> dict[str, str]:
    """Of what results may depend on."""
    return {name: version(name) for name in ("gem_fast", "numpy", "pillow")}


def _number(value: float) -> float | None:
    """None for NaN, which JSON has not."""
    return None if math.isnan(value) else float(value)
