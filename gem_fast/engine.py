"""What an engine has to supply, and how the scores of a batch come of it. Needs no torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import numpy as np

from .decoding import Decoder
from .options import Defaults
from .preprocess import Picture, ResizePolicy, resized
from .query import Query
from .windows import Layout, Windows, parse_windows, windowed_size
from .word_encoder import WordEncoder

Sizes = Sequence[tuple[int, int]] | None  # height and width of each image's labels, for an engine that decodes them
# Pixels, the shape of their input, and sizes, to the scores of each image, or its labels.
Encode = Callable[[np.ndarray, tuple[int, int], Sizes], Sequence[np.ndarray]]
Replica = Callable[[str, int], Encode]  # given a device and a number of threads: `score_on_host`, of a query


class Engine(ABC):
    """An engine: it supplies features, embeddings and scores as arrays of its own, and the decoder that reads them.

    Attributes:
        name: of the model.
        defaults: input size and thresholds when the caller names none.
        text: words to embeddings.
        usual_resize: the resize policy when the caller names none.
        resizes: whether `pixels` resizes; if not, the engine does, and takes images of any size.
        decodes: whether `score_on_host` gives labels where sizes are named: on a GPU that costs next to nothing.
        feature_surgery: whether `scores` are those of CLIP Surgery's feature surgery.
    """

    name: str
    defaults: Defaults
    text: WordEncoder[Any]
    usual_resize = "shorter"
    resizes = True
    decodes = False
    feature_surgery = False

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What its results depend on: `model`, `weights` (their sha256), `method` and `dtype`."""

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """Side of a patch in pixels of the input."""

    @abstractmethod
    def input_size(self, image_size: tuple[int, int], size: int | None, resize: ResizePolicy | None) -> tuple[int, int]:
        """Height and width of the model's input for an image of that height and width.

        Raises:
            ImageError: this image can't have one. ValueError: no image could.
        """

    def windows(self, window: int | None, stride: int | None) -> Windows | None:
        """Sliding windows as `segment` takes them; ValueError if there can't be such."""
        return parse_windows(window, stride, self.patch_size)

    def place(
        self, image_size: tuple[int, int], size: int | None, resize: ResizePolicy | None, windows: Windows | None
    ) -> tuple[tuple[int, int], Layout | None]:
        """Height and width of an image's input, and the windows on it if it takes several.

        Raises:
            ImageError: this image can't have such an input. ValueError: no image could.
        """
        if windows is None:
            return self.input_size(image_size, size, resize), None
        shape = windowed_size(image_size, size or self.defaults.size, resize or "shorter", self.patch_size)
        layout = windows.layout(shape)
        return shape, layout if len(layout) > 1 else None

    def resized(self, picture: Picture, size: tuple[int, int]) -> np.ndarray:
        """An RGB image resized to height and width, as the model's input is: `[H, W, 3]` uint8."""
        return resized(picture, size)

    def pixels(self, picture: Picture, shape: tuple[int, int]) -> np.ndarray:
        """What `patch_features` takes of an RGB image: resized to height and width, `[H, W, 3]` uint8."""
        return self.resized(picture, shape) if self.resizes else np.asarray(picture)

    @abstractmethod
    def patch_features(self, pixels: np.ndarray, shape: tuple[int, int]) -> Any:
        """L2-normalised patch features `[B, h, w, E]` of what `pixels` gave for a shape, `[B, H, W, 3]` uint8."""

    @abstractmethod
    def scores(self, patches: Any, members: Sequence[int], words: Any, groups: Sequence[int]) -> Any:
        """Scores of some images of a batch, `[P, h, w]` each: of each class the maximum over its words.

        Args:
            patches: from `patch_features`.
            members: which images of the batch.
            words: their unit embeddings from `text`, those of a class next to each other.
            groups: number of words of each class.
        """

    @property
    @abstractmethod
    def decoder(self) -> Decoder:
        """What decodes the scores."""

    @property
    @abstractmethod
    def host_decoder(self) -> Decoder:
        """What decodes scores that lie in numpy arrays, on one thread of any process."""

    @property
    def engines(self) -> int:
        """How many threads together are served faster than one, each on its share of the cores."""
        return 1

    def share_cores(self, engines: int) -> None:
        """From now on, compute on one of so many shares of the cores where this thread calls the engine."""
        assert engines == 1

    def own_stream(self) -> AbstractContextManager[Any]:
        """Where this thread's work goes beside that of others, while it is entered."""
        return nullcontext()

    @property
    def devices(self) -> tuple[str, ...]:
        """Where copies of it may run."""
        return ("cpu",)

    @abstractmethod
    def replica(self, query: Query, windows: Windows | None = None, batch_size: int = 8) -> Replica:
        """What makes a copy in another process that scores as `score_on_host`; to be pickled."""

    def window_pixels(self, picture: Picture, shape: tuple[int, int]) -> np.ndarray:
        """What windows are cut from: the image resized to height and width, even where the engine resizes others."""
        return self.resized(picture, shape)

    def windowed_scores(
        self, images: Iterable[tuple[np.ndarray, Layout, Query]], batch_size: int
    ) -> Iterator[tuple[np.ndarray, Layout]]:
        """Scores of images in windows of one size, so many in one forward, whatever images they are of.

        Args:
            images: pixels `[H, W, 3]` uint8 of each input, its windows, and what it is asked for.
            batch_size: windows in one forward.

        Yields:
            For each image in turn the scores of all its windows, as a `WindowDecoder` takes them, and its windows.
        """
        crops = (
            (layout, query, room, index, crop)
            for pixels, layout, query in images
            for room in [layout.empty(len(query.groups))]
            for index, crop in enumerate(layout.crops(pixels))
        )
        while batch := list(islice(crops, batch_size)):
            patches = self.patch_features(np.stack([crop for *_, crop in batch]), batch[0][0].crop)
            for query in dict.fromkeys(query for _, query, *_ in batch):
                members = [k for k, each in enumerate(batch) if each[1] is query]
                scores = self.decoder.scores(self.scores(patches, members, query.words, query.groups))
                for k, own in zip(members, scores, strict=True):
                    layout, _, room, index, _ = batch[k]
                    layout.put(room, index, own)
            yield from ((room, layout) for layout, _, room, index, _ in batch if index == len(layout) - 1)

    def score_on_host(
        self,
        pixels: np.ndarray,
        shape: tuple[int, int],
        query: Query,
        windows: Windows | None = None,
        batch_size: int = 8,
        sizes: Sizes = None,
    ) -> list[np.ndarray]:
        """Scores of a batch of pixels for one query, `[P + Q, h, w]` float32 each, as `host_decoder` takes them.

        With windows, and an input that takes several, as a `WindowDecoder` takes them. With sizes, and an engine that
        `decodes`, the labels alone, `[H, W]` each.
        """
        layout = windows.layout(shape) if windows else None
        if layout is not None and len(layout) > 1:
            return [own for own, _ in self.windowed_scores(((each, layout, query) for each in pixels), batch_size)]
        patches = self.patch_features(pixels, shape)
        return self.to_host(self.scores(patches, range(len(pixels)), query.words, query.groups), query, sizes)

    def to_host(self, scores: Any, query: Query, sizes: Sizes) -> list[np.ndarray]:
        """Scores of a batch as arrays on the host; where sizes are named, an engine that `decodes` gives labels."""
        return list(self.decoder.scores(scores))


def encoder(engine: Engine, query: Query, windows: Windows | None, batch_size: int) -> Encode:
    """`score_on_host` of a query."""
    return lambda pixels, shape, sizes: engine.score_on_host(pixels, shape, query, windows, batch_size, sizes)
