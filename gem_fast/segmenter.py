"""What every engine shares: from images and prompts of any kind to segmentations. Needs no torch."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from PIL import Image

from .decoding import Decoder, is_alone
from .images import MAX_PIXELS, MAX_WINDOWED_PIXELS, ImageError, ImageLike, as_batch, load_image
from .options import Defaults
from .preprocess import Picture, ResizePolicy, resized
from .prompts import Prompts, TextClass, parse_classes, parse_templates, prompts_for_each
from .query import Query, check_scores
from .segmentation import Segmentation
from .streaming import stream
from .windows import Layout, WindowDecoder, Windows, parse_windows, windowed_size
from .word_encoder import WordEncoder

Sizes = Sequence[tuple[int, int]] | None  # height and width of each image's labels, for an engine that decodes them
# Pixels, the shape of their input, and sizes, to the scores of each image, or its labels.
Encode = Callable[[np.ndarray, tuple[int, int], Sizes], Sequence[np.ndarray]]
Replica = Callable[[str, int], Encode]  # given a device and a number of threads: `score_on_host`, of a query


class _Ready(NamedTuple):
    """An RGB image, height and width of its input, the windows on it if it has several, and its file."""

    picture: Image.Image
    shape: tuple[int, int]
    layout: Layout | None
    source: str | None


class Segmenter(ABC):
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

    def encode_text(self, prompts: Prompts, templates: str | Sequence[str] = "photo") -> Any:
        """Unit embeddings `[T, E]` float32 of all words of the prompts, a class's synonyms next to each other."""
        words = [word for text_class in parse_classes(prompts) for word in text_class.synonyms]
        return self.text.encode(words, parse_templates(templates))

    def query(
        self,
        prompts: Prompts,
        *,
        background: Prompts = (),
        templates: str | Sequence[str] = "photo",
        threshold: float | None = None,
        logit_scale: float | None = None,
    ) -> Query:
        """Prompts and settings as `segment` takes them, made ready for any number of images.

        Raises:
            ValueError: an argument is wrong; the message says what would be right.
        """
        rest = parse_classes(background) if background else ()
        return self._query(parse_classes(prompts), rest, templates, threshold, logit_scale)

    def _query(
        self,
        classes: tuple[TextClass, ...],
        rest: tuple[TextClass, ...],
        templates: str | Sequence[str],
        threshold: float | None,
        logit_scale: float | None,
    ) -> Query:
        check_scores(threshold, logit_scale)
        template_set = parse_templates(templates)
        usual = self.defaults.heatmap_threshold if is_alone(len(classes) + len(rest)) else self.defaults.threshold
        return Query(
            classes,
            rest,
            self.word_embeddings((*classes, *rest), template_set),
            template_set,
            usual if threshold is None else threshold,
            self.defaults.logit_scale if logit_scale is None else logit_scale,
        )

    def word_embeddings(self, classes: Sequence[TextClass], templates: tuple[str, ...]) -> Any:
        """What `scores` takes for the words of the classes, `[T, E]`, a class's synonyms next to each other.

        For the feature surgery of a single class, their differences from the embedding of no word.
        """
        words = self.text.encode([word for each in classes for word in each.synonyms], templates)
        if self.feature_surgery and len(classes) == 1:
            words = words - self.text.encode([""], templates)
        return words

    def check_input(self, size: int | None, resize: ResizePolicy | None, windows: Windows | None = None) -> None:
        """Raise ValueError for a size or a policy that no image could be resized by."""
        if size is not None and size < 1:
            raise ValueError(f"size must be a positive number of pixels, got {size}")
        with suppress(ImageError):  # which would be that image's own
            self.place((self.defaults.size, self.defaults.size), size, resize, windows)

    @overload
    def segment(self, images: ImageLike, prompts: Prompts, **settings: Any) -> Segmentation: ...
    @overload
    def segment(
        self, images: Sequence[ImageLike], prompts: Prompts | Sequence[Sequence[str]], **settings: Any
    ) -> list[Segmentation]: ...
    def segment(  # type: ignore[misc]  # the overloads leave the settings to this signature
        self,
        images: Any,
        prompts: Any,
        *,
        background: Prompts = (),
        size: int | None = None,
        resize: ResizePolicy | None = None,
        threshold: float | None = None,
        logit_scale: float | None = None,
        templates: str | Sequence[str] = "photo",
        window: int | None = None,
        stride: int | None = None,
        batch_size: int = 8,
    ) -> Segmentation | list[Segmentation]:
        """Segment one image, or a list of images of any mix of sizes.

        Args:
            images: a path, PIL image, array or tensor as `images.load_image` takes it; or a list of them, or a batch
                of them in a four-dimensional array or tensor.
            prompts: the classes. `"cat"`; `["cat", "remote control"]`; a tuple for a class of several words, as in
                `["cat", ("car", "automobile")]`; a mapping from names to words; or, for a list of images, a list with
                such a list for each image.
            background: what else the images may show, as prompts; it competes with the classes, and where it wins
                the label is 0.
            size: side of the model's input in pixels, by default `defaults.size`; see `resize`.
            resize: `"shorter"` (side, aspect kept; the default), `"squash"` (square) or `"exact"` (the image's own
                size), each rounded to multiples of the patch. Exported models have certain sizes only: their default
                is the one that is nearest to `"shorter"`.
            threshold: confidence below which a pixel is background; 0 for none. By default `defaults.threshold`, or
                `defaults.heatmap_threshold` for a single prompt without background, whose confidence is its heat map.
            logit_scale: multiplier of the cosine before the softmax over classes.
            templates: `"photo"` (`a photo of a {}.`), `"imagenet"` (80 of them), or own ones.
            window: side in pixels of overlapping windows that the resized image is read in, each by itself; a pixel's
                score is the mean over those that cover it. Files may then have `MAX_WINDOWED_PIXELS`.
            stride: pixels from one window to the next, by default half of `window`.
            batch_size: images or windows in one forward; those of the same size go together.

        Returns:
            A `Segmentation`, or a list of them in the order of the images. They hold the original images: for more
            files than fit in memory use `gem_fast.segment_files`.

        Raises:
            ImageError: an image can't be read. ValueError: an argument is wrong. The message says what would be right.
        """
        windows = self.windows(window, stride)
        self.check_input(size, resize, windows)
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        batch, single = as_batch(images)
        rest = parse_classes(background) if background else ()
        asked = prompts_for_each(prompts, len(batch))
        queries = {each: self._query(each, rest, templates, threshold, logit_scale) for each in set(asked)}
        ready = [self._load(image, size, resize, windows) for image in batch]
        results = self._results(ready, [queries[each] for each in asked], batch_size)
        return results[0] if single else results

    def stream(
        self,
        images: Iterable[ImageLike],
        prompts: Prompts,
        *,
        size: int | None = None,
        resize: ResizePolicy | None = None,
        window: int | None = None,
        stride: int | None = None,
        batch_size: int = 8,
        **query: Any,
    ) -> Iterator[Segmentation | ImageError]:
        """Segment images one after another, for a loop of your own: any number of them, read ahead in a thread.

        Args:
            images: as for `segment`, in any iterable, which may have no end.
            prompts: the classes, for all images.
            size, resize, window, stride: as for `segment`.
            batch_size: images in one forward: so many neighbours of one input size go together.
            **query: background, templates, threshold and logit_scale, as for `segment`.

        Yields:
            For each image in turn its result, or the `ImageError` that says why it has none.

        Raises:
            ValueError: an argument is wrong, before the first image is read.
        """
        windows = self.windows(window, stride)
        self.check_input(size, resize, windows)
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        asked = self.query(prompts, **query)
        return stream(
            images,
            lambda image: self._load(image, size, resize, windows),
            lambda ready: self._results(ready, [asked] * len(ready), batch_size),
            batch_size,
        )

    def _load(
        self, image: ImageLike, size: int | None, resize: ResizePolicy | None, windows: Windows | None
    ) -> "_Ready":
        """An image, and the shape of its input; ImageError if it has none."""
        picture = load_image(image, MAX_WINDOWED_PIXELS if windows else MAX_PIXELS)
        shape, layout = self.place((picture.height, picture.width), size, resize, windows)
        return _Ready(picture, shape, layout, str(image) if isinstance(image, str | Path) else None)

    def _results(self, ready: Sequence["_Ready"], queries: Sequence[Query], batch_size: int) -> list[Segmentation]:
        """Results of images, each with its query; those whose pixels and inputs are of one size go together."""
        groups: dict[Any, list[int]] = defaultdict(list)
        windowed: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, each in enumerate(ready):
            if each.layout is not None:
                windowed[each.layout.crop].append(i)
            else:
                groups[each.shape if self.resizes else (each.shape, each.picture.size)].append(i)
        results: dict[int, Segmentation] = {}
        for group in windowed.values():
            read = (
                (self.window_pixels(each.picture, each.shape), each.layout, query)
                for each, query in ((ready[i], queries[i]) for i in group)
                if each.layout is not None
            )
            for i, (own, layout) in zip(group, self.windowed_scores(read, batch_size), strict=True):
                each = ready[i]
                results[i] = queries[i].result(each.picture, own, WindowDecoder(layout), each.source)
        for group in groups.values():
            for start in range(0, len(group), batch_size):
                chunk, shape = group[start : start + batch_size], ready[group[0]].shape
                patches = self.patch_features(np.stack([self.pixels(ready[i].picture, shape) for i in chunk]), shape)
                for query in dict.fromkeys(queries[i] for i in chunk):
                    members = [k for k, i in enumerate(chunk) if queries[i] is query]
                    scores = self.scores(patches, members, query.words, query.groups)
                    for k, own in zip(members, scores, strict=True):
                        each = ready[chunk[k]]
                        results[chunk[k]] = query.result(each.picture, own, self.decoder, each.source)
        return [results[i] for i in range(len(ready))]

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


def encoder(segmenter: Segmenter, query: Query, windows: Windows | None, batch_size: int) -> Encode:
    """`score_on_host` of a query."""
    return lambda pixels, shape, sizes: segmenter.score_on_host(pixels, shape, query, windows, batch_size, sizes)
