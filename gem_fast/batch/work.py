"""What is done with one image: from its file to pixels for the engine, and from its scores to files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..images import MAX_PIXELS, MAX_WINDOWED_PIXELS, ImageError, decode_pixels, load_pixels
from ..outputs import OVERLAYS
from ..windows import Layout, WindowDecoder, Windows
from .options import BatchOptions
from .records import Record
from .sources import Source
from .stores import Store
from .workers import Seconds

if TYPE_CHECKING:
    from ..query import Query
    from ..segmenter import Segmenter


@dataclass(frozen=True)
class Held:
    """What a worker keeps of an image until its scores come: the picture as an overlay needs it, if it does.

    `layout` has the windows that it is read in, if these are several; `decoded`, whether the engine gives its labels.
    """

    source: Source
    label_size: tuple[int, int]
    picture: Image.Image | None
    layout: Layout | None = None
    decoded: bool = False

    @property
    def decoded_size(self) -> tuple[int, int] | None:
        return self.label_size if self.decoded else None

    @property
    def nbytes(self) -> int:
        return 0 if self.picture is None else 3 * self.picture.width * self.picture.height


@dataclass(frozen=True)
class ImageWork:
    """The work of `segment_files`.

    Attributes:
        model: gives the input's size, its pixels, and the decoder of its scores.
        query: what is looked for.
        options: of the run.
        store: where the files go.
        windows: that larger images are read in, or None.
    """

    model: "Segmenter"
    query: "Query"
    options: BatchOptions
    store: "Store"
    windows: Windows | None = None

    def prepare(self, source: Source, seconds: Seconds) -> tuple[Held, np.ndarray, tuple[int, int]]:
        options = self.options
        with timed("read", seconds):
            picture = self._read(source)
        with timed("resize", seconds):
            height, width, _ = picture.shape
            size = height, width
            shape, layout = self.model.place(size, options.size, options.resize, self.windows)
            pixels = (self.model.window_pixels if layout else self.model.pixels)(picture, shape)
            label_size = shape if options.label_size == "model" else _scaled(size, options.label_size, self._most)
            shown = Image.fromarray(self._shrunk(picture)) if self._overlays else None
        return Held(source, label_size, shown, layout, self._decoded), pixels, shape

    @property
    def _overlays(self) -> bool:
        """Whether there are any, whatever was asked for: some shards have none."""
        return any(kind in OVERLAYS.values() for kind in self.options.kinds)

    @property
    def _decoded(self) -> bool:
        """Whether the engine's labels are all that is needed: overlays finer than they take scores, too."""
        finer = self._overlays and self.options.label_size is not None
        by_scores = any(kind.by_scores for kind in self.options.kinds)
        return self.model.decodes and not (self.windows or by_scores or finer)

    def _read(self, source: Source) -> np.ndarray:
        if source.content is None:
            return load_pixels(source.path, self._most)
        return decode_pixels(source.content.read(), source.image, self._most)

    @property
    def _most(self) -> int:
        """Pixels that an image may have, and its labels."""
        return MAX_WINDOWED_PIXELS if self.windows else MAX_PIXELS

    def _shrunk(self, picture: np.ndarray) -> np.ndarray:
        """The picture, made smaller if its longest side is more than an overlay's."""
        scale = (self.options.overlay_size or max(picture.shape)) / max(picture.shape[:2])
        if scale >= 1:
            return picture
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        return self.model.resized(picture, (height, width))

    def finish(self, held: Held, scores: np.ndarray, seconds: Seconds) -> Any:
        image, picture = held.source.image, held.picture or Image.new("RGB", (1, 1))
        decoder = WindowDecoder(held.layout) if held.layout else self.model.host_decoder
        if held.decoded:
            result = self.query.labelled(picture, scores, decoder, image)
        else:
            result = self.query.result(picture, scores, decoder, image, held.label_size)
        with timed("decode scores", seconds):
            areas = result.areas()
        with timed("encode files", seconds):
            contents = {kind.name: kind.content(result) for kind in self.options.kinds}
        with timed("write", seconds):
            return self.store.keep(held.source, Record(image, "ok", None, *result.size, areas=areas), contents)


def _scaled(size: tuple[int, int], shorter: "int | str | None", most: int) -> tuple[int, int]:
    """Height and width with that shorter side, or as they are; ImageError if they have more pixels than `most`."""
    if not isinstance(shorter, int):
        return size
    scale = shorter / min(size)
    height, width = (max(1, round(side * scale)) for side in size)
    if height * width > most:
        raise ImageError(f"labels of {width}×{height} are more than {most:,} pixels; take a smaller label size")
    return height, width


@contextmanager
def timed(stage: str, seconds: Seconds) -> Iterator[None]:
    """Add what the block takes to the stage's seconds."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
