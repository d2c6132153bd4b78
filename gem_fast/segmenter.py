"""What every engine shares: from images and prompts of any kind to segmentations. Needs no torch."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from .decoding import Decoder
from .images import ImageLike, is_tensor, load_image
from .options import Defaults
from .preprocess import ResizePolicy
from .prompts import Prompts, TextClass, parse_classes, parse_templates
from .segmentation import Segmentation
from .word_encoder import WordEncoder


class Segmenter(ABC):
    """An engine: it supplies features, embeddings and scores as arrays of its own, and the decoder that reads them.

    Attributes:
        name: of the model.
        defaults: input size and thresholds when the caller names none.
        text: words to embeddings.
    """

    name: str
    defaults: Defaults
    text: WordEncoder[Any]

    @abstractmethod
    def input_size(self, image_size: tuple[int, int], size: int | None, resize: ResizePolicy | None) -> tuple[int, int]:
        """Height and width of the model's input for an image of that height and width."""

    @abstractmethod
    def patch_features(self, pictures: Sequence[Image.Image], shape: tuple[int, int]) -> Any:
        """L2-normalised patch features `[B, h, w, E]` of RGB images, resized to height and width."""

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

    def encode_text(self, prompts: Prompts, templates: str | Sequence[str] = "photo") -> Any:
        """Unit embeddings `[T, E]` float32 of all words of the prompts, a class's synonyms next to each other."""
        words = [word for text_class in parse_classes(prompts) for word in text_class.synonyms]
        return self.text.encode(words, parse_templates(templates))

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
            batch_size: images in one forward; those of the same input size go together.

        Returns:
            A `Segmentation`, or a list of them in the order of the images. They hold the original images: for more
            files than fit in memory use `gem_fast.segment_files`.

        Raises:
            ImageError: an image can't be read. ValueError: an argument is wrong. The message says what would be right.
        """
        check_settings(size, threshold, logit_scale, batch_size)
        batch, single = as_batch(images)
        asked = prompts_for_each(prompts, len(batch))
        template_set = parse_templates(templates)
        rest = parse_classes(background) if background else ()
        words: dict[tuple[TextClass, ...], Any] = {}
        for each in dict.fromkeys(asked):
            words[each] = self.text.encode([word for c in (*each, *rest) for word in c.synonyms], template_set)
        pictures = [load_image(image) for image in batch]
        results: dict[int, Segmentation] = {}
        shapes = [self.input_size((picture.height, picture.width), size, resize) for picture in pictures]
        for chunk, shape in chunks(shapes, batch_size):
            patches = self.patch_features([pictures[i] for i in chunk], shape)
            for each in dict.fromkeys(asked[i] for i in chunk):
                members = [k for k, i in enumerate(chunk) if asked[i] == each]
                groups = [len(c.synonyms) for c in (*each, *rest)]
                for k, scores in zip(members, self.scores(patches, members, words[each], groups), strict=True):
                    source = batch[chunk[k]]
                    results[chunk[k]] = Segmentation.judged(
                        pictures[chunk[k]],
                        tuple(c.name for c in each),
                        scores,
                        self.decoder,
                        self.defaults,
                        threshold=threshold,
                        logit_scale=logit_scale,
                        source=str(source) if isinstance(source, str | Path) else None,
                    )
        return results[0] if single else [results[i] for i in range(len(batch))]


def chunks(shapes: Sequence[tuple[int, int]], batch_size: int) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """Indices of images that go through the model together, and the height and width that they share."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, shape in enumerate(shapes):
        groups[shape].append(i)
    for shape, members in groups.items():
        for start in range(0, len(members), batch_size):
            yield members[start : start + batch_size], shape


def check_settings(size: int | None, threshold: float | None, logit_scale: float | None, batch_size: int) -> None:
    """Raise ValueError for a number that no image could be segmented with."""
    if logit_scale is not None and not logit_scale > 0:
        raise ValueError(f"logit_scale must be positive, got {logit_scale}")
    if size is not None and size < 1:
        raise ValueError(f"size must be a positive number of pixels, got {size}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in 0..1, got {threshold}")


def as_batch(images: Any) -> tuple[list[ImageLike], bool]:
    """The images as a list, and whether a single one was given."""
    if (isinstance(images, np.ndarray) or is_tensor(images)) and images.ndim == 4:
        return list(images), False
    if isinstance(images, list | tuple):
        return list(images), False
    return [images], True


def prompts_for_each(prompts: Any, count: int) -> list[tuple[TextClass, ...]]:
    """Classes of each of `count` images: a list of lists or mappings is one for each, anything else is for all."""
    if isinstance(prompts, list | tuple) and prompts and all(isinstance(p, list | dict) for p in prompts):
        if len(prompts) != count:
            raise ValueError(
                f"prompts has {len(prompts)} lists for {count} images; give one for each image, "
                "or a flat list for all (synonyms of a class go into a tuple)"
            )
        return [parse_classes(each) for each in prompts]
    return [parse_classes(prompts)] * count
