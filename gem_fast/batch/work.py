"""What is done with one image: from its file to pixels for the engine, and from its scores to files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..images import load_image
from ..outputs import OutputKind
from ..preprocess import ResizePolicy
from ..writing import write_whole
from .records import Record
from .sources import Source
from .workers import Seconds

if TYPE_CHECKING:
    from ..segmenter import Query, Segmenter


@dataclass(frozen=True)
class Held:
    """What a worker keeps of an image until its scores come."""

    source: Source
    picture: Image.Image

    @property
    def nbytes(self) -> int:
        return self.picture.width * self.picture.height * len(self.picture.getbands())


@dataclass(frozen=True)
class ImageWork:
    """The work of `segment_files`.

    Attributes:
        model: gives the input's size, its pixels, and the decoder of its scores.
        query: what is looked for.
        size, resize: of the model's input.
        folder: the output folder.
        partial: folder in it for files that are being written.
        kinds: what is written of each image.
    """

    model: "Segmenter"
    query: "Query"
    size: int | None
    resize: ResizePolicy | None
    folder: Path
    partial: Path
    kinds: tuple[OutputKind, ...]

    def prepare(self, source: Source, seconds: Seconds) -> tuple[Held, np.ndarray, tuple[int, int]]:
        with timed("read", seconds):
            picture = load_image(source.path)
        with timed("resize", seconds):
            shape = self.model.input_size((picture.height, picture.width), self.size, self.resize)
            pixels = self.model.pixels(picture, shape)
        return Held(source, picture), pixels, shape

    def finish(self, held: Held, scores: np.ndarray, seconds: Seconds) -> Record:
        result = self.query.result(held.picture, scores, self.model.host_decoder, str(held.source.path))
        with timed("decode scores", seconds):
            areas = result.areas()
        files = {}
        for kind in self.kinds:
            name = f"{held.source.name}{kind.ending}"
            with timed("encode files", seconds):
                content = kind.content(result)
            with timed("write", seconds):
                write_whole(self.folder / name, content, self.partial)
            files[kind.name] = name
        return Record(str(held.source.path), "ok", None, *result.size, areas=areas, files=files)


@contextmanager
def timed(stage: str, seconds: Seconds) -> Iterator[None]:
    """Add what the block takes to the stage's seconds."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
