"""From images and prompts of any kind to segmentations, by any engine. Needs no torch."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from PIL import Image

from .decoding import is_alone
from .engine import Engine
from .images import MAX_PIXELS, MAX_WINDOWED_PIXELS, ImageError, ImageLike, as_batch, load_image
from .numbers import number, whole
from .preprocess import ResizePolicy
from .prompts import Prompts, TextClass, parse_background, parse_classes, parse_templates, prompts_for_each
from .query import Query, score_settings
from .segmentation import Segmentation
from .streaming import stream
from .windows import Layout, WindowDecoder, Windows


class _Ready(NamedTuple):
    """An RGB image, height and width of its input, the windows on it if it has several, and its file."""

    picture: Image.Image
    shape: tuple[int, int]
    layout: Layout | None
    source: str | None


class Segmenter(Engine):
    """An engine, and what users ask of it: whatever it supplies becomes results here."""

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
        rest = parse_background(background)
        return self._query(parse_classes(prompts), rest, templates, threshold, logit_scale)

    def _query(
        self,
        classes: tuple[TextClass, ...],
        rest: tuple[TextClass, ...],
        templates: str | Sequence[str],
        threshold: float | None,
        logit_scale: float | None,
    ) -> Query:
        own = self.defaults
        usual = own.heatmap_threshold if is_alone(len(classes) + len(rest)) else own.threshold
        settings = score_settings(threshold, logit_scale, (usual, own.logit_scale))
        template_set = parse_templates(templates)
        words = self.word_embeddings((*classes, *rest), template_set)
        return Query(classes, rest, words, template_set, *settings)

    def word_embeddings(self, classes: Sequence[TextClass], templates: tuple[str, ...]) -> Any:
        """What `scores` takes for the words of the classes, `[T, E]`, a class's synonyms next to each other.

        For the feature surgery of a single class, their differences from the embedding of no word.
        """
        words = self.text.encode([word for each in classes for word in each.synonyms], templates)
        if self.feature_surgery and len(classes) == 1:
            words = words - self.text.encode([""], templates)
        return words

    def check_input(self, size: int | None, resize: ResizePolicy | None, windows: Windows | None = None) -> int | None:
        """The size as a plain number; ValueError for one or a policy that no image could be resized by."""
        if size is not None:
            size = number("size", size, "a positive number of pixels", lambda x: 1 <= x < math.inf)
        with suppress(ImageError):  # which would be that image's own
            self.place((self.defaults.size, self.defaults.size), size, resize, windows)
        return size

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
            resize: `"shorter"` (side, aspect kept), `"squash"` (square) or `"exact"` (the image's own size), each
                rounded to multiples of the patch; by default `defaults.resize`, in windows `"shorter"`. Where an
                exported model has certain sizes only, its default is the one that is nearest to that.
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
        size, batch_size = self.check_input(size, resize, windows), whole("batch_size", batch_size, 1)
        batch, single = as_batch(images)
        rest = parse_background(background)
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
        size, batch_size = self.check_input(size, resize, windows), whole("batch_size", batch_size, 1)
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
                    for place, k in enumerate(members):
                        each, own = ready[chunk[k]], 1 * scores[place]  # a copy, which keeps no other image's alive
                        results[chunk[k]] = query.result(each.picture, own, self.decoder, each.source)
        return [results[i] for i in range(len(ready))]
