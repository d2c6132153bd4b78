"""The loop of every evaluation: images through the batch pipeline to counts, which a journal keeps. Needs no torch."""

import time
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass
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
from ..batch.workers import Failure, Seconds
from ..cores import cores
from ..images import MAX_PIXELS, MAX_WINDOWED_PIXELS, ImageLike, load_image
from ..windows import Layout, WindowDecoder, Windows
from .journal import Counts, Journal
from .protocols import Protocol

if TYPE_CHECKING:
    from ..decoding import Decoder
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
class Running:
    """How an evaluation runs, whatever it measures.

    Attributes:
        method: what the row calls the method.
        progress: kept up to date, for who watches it from another thread.
        journal: file that keeps what is finished of each image, so that the same evaluation goes on there.
        batch_size: images or windows in one forward.
        workers: how many read and decode beside the engine; None for one a core.
    """

    method: str = "gem"
    progress: Progress | None = None
    journal: Path | None = None
    batch_size: int = 8
    workers: int | None = None

    def __post_init__(self) -> None:
        BatchOptions(batch_size=self.batch_size, workers=self.workers)


@dataclass(frozen=True)
class Held:
    """What a worker keeps of an image until its scores come: its place in the set, its size, and that of its input."""

    index: int
    size: tuple[int, int]
    shape: tuple[int, int]
    layout: Layout | None
    nbytes: int = 0
    decoded_size: None = None


@dataclass(frozen=True)
class Measuring(ABC):
    """The pipeline's work: an image to pixels, and its scores to counts."""

    model: "Segmenter"
    steps: Protocol
    windows: Windows | None

    @abstractmethod
    def labels(self) -> list[str]:
        """What each image is called in errors."""

    @abstractmethod
    def image(self, index: int) -> ImageLike: ...

    def check(self, index: int, size: tuple[int, int]) -> None:  # noqa: B027  # there may be nothing to check
        """Raise ImageError, before the engine has an image of height and width, if it can't be measured."""

    @abstractmethod
    def counts(self, held: Held, scores: np.ndarray, decoder: "Decoder", seconds: Seconds) -> Counts:
        """Of an image, given its scores and what decodes them."""

    def prepare(self, source: Source, seconds: Seconds) -> tuple[Held, np.ndarray, tuple[int, int]]:
        index = source.key
        with timed("read", seconds):
            picture = load_image(self.image(index), MAX_WINDOWED_PIXELS if self.windows else MAX_PIXELS)
        with timed("resize", seconds):
            size = picture.height, picture.width
            self.check(index, size)
            shape, layout = self.model.place(size, self.steps.size, self.steps.resize, self.windows)
            pixels = (self.model.window_pixels if layout else self.model.pixels)(picture, shape)
        return Held(index, size, shape, layout), pixels, shape

    def finish(self, held: Held, scores: np.ndarray, seconds: Seconds) -> tuple[int, Counts]:
        decoder = WindowDecoder(held.layout) if held.layout else self.model.host_decoder
        return held.index, self.counts(held, scores, decoder, seconds)


def measured(
    work: Measuring, query: "Query", kept: Journal, progress: Progress, running: Running
) -> tuple[dict[int, Counts], list[str]]:
    """Counts of all images that could be used by their places, in order, and why others could not."""
    model, labels = work.model, work.labels()
    progress.total, progress.kept = len(labels), len(kept.finished)
    progress.started = time.monotonic()
    limits = Limits(batch_size=running.batch_size, workers=running.workers or cores(), engines=model.engines)
    make_encode = in_threads(model, query, work.windows, running.batch_size)
    sources = ((i, Source(Path(each), str(i), i)) for i, each in enumerate(labels) if i not in kept.finished)
    found, failures = dict(kept.finished), []
    try:
        with closing(Pipeline(work, make_encode, limits, progress).run(sources)) as results:
            for _, source, result in results:
                if isinstance(result, Failure):
                    failures.append(f"{source.path}: {result.error.removeprefix(f'{source.path}: ')}")
                    progress.count("failed", result.error)
                    continue
                index, counts = result
                found[index] = counts
                kept.keep(index, counts)
                progress.count("ok")
    finally:
        model.share_cores(1)
    return {index: found[index] for index in sorted(found)}, failures


def versions() -> dict[str, str]:
    """Of what results may depend on."""
    return {name: version(name) for name in ("gem_fast", "numpy", "pillow")}


def number(value: float) -> float | None:
    """None for NaN, which JSON has not."""
    return float(value) if value == value else None
