"""The model as users hold it: images and prompts in, segmentations out."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .images import ImageLike, load_image
from .options import Defaults
from .preprocess import ResizePolicy, input_size, to_pixels
from .prompts import Prompts, TextClass, parse_classes, parse_templates
from .scores import class_scores
from .segmentation import Segmentation
from .text import TextEncoder
from .vision import GemVisionTransformer, VisionFeatures


@dataclass(frozen=True)
class GemModel:
    """A CLIP model with GEM's path. Make one with `gem_fast.load`.

    Attributes:
        name, source: the model and where its weights came from.
        vision: the vision transformer with both paths, on `device`.
        text: the text encoder, in float32.
        defaults: input size and thresholds when the caller names none.
        mean, std: the normalisation of pixels in 0..1.
    """

    name: str
    source: str
    vision: GemVisionTransformer
    text: TextEncoder
    defaults: Defaults
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def device(self) -> torch.device:
        return self.vision.class_embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.vision.class_embedding.dtype

    @overload
    def features(self, pixels: Tensor, original: Literal[False] = False) -> Tensor: ...
    @overload
    def features(self, pixels: Tensor, original: Literal[True]) -> VisionFeatures: ...
    def features(self, pixels: Tensor, original: bool = False) -> VisionFeatures | Tensor:
        """GEM's patch features of normalised pixels.

        Args:
            pixels: `[B, 3, H, W]`, normalised with the model's mean and std, sides multiples of the patch.
            original: also finish the unchanged path.

        Returns:
            L2-normalised patch features `[B, h, w, E]`; with `original`, `VisionFeatures` with the unchanged path's
            patch and class features too.
        """
        with torch.inference_mode():
            features = self.vision(pixels.to(self.device), original=original)
        return features if original else features.patches

    def encode_text(self, prompts: Prompts, templates: str | Sequence[str] = "photo") -> Tensor:
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
        resize: ResizePolicy = "shorter",
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
            resize: `"shorter"` (side, aspect kept), `"squash"` (square) or `"exact"` (the image's own size), each
                rounded to multiples of the patch.
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
        words = {
            each: self.text.encode([word for c in (*each, *rest) for word in c.synonyms], template_set)
            for each in dict.fromkeys(asked)
        }
        pictures = [load_image(image) for image in batch]
        results: dict[int, Segmentation] = {}
        for chunk, shape in self._chunks(pictures, size or self.defaults.size, resize, batch_size):
            pixels = torch.stack([to_pixels(pictures[i], shape, self.mean, self.std) for i in chunk])
            patches = self.features(pixels)
            for each in dict.fromkeys(asked[i] for i in chunk):
                members = [k for k, i in enumerate(chunk) if asked[i] == each]
                cosines = class_scores(patches[members], words[each], [len(c.synonyms) for c in (*each, *rest)])
                alone = len(each) + len(rest) == 1
                usual = self.defaults.heatmap_threshold if alone else self.defaults.threshold
                for k, cosine in zip(members, cosines, strict=True):
                    source = batch[chunk[k]]
                    results[chunk[k]] = Segmentation(
                        image=pictures[chunk[k]],
                        classes=tuple(c.name for c in each),
                        cosines=cosine,
                        threshold=usual if threshold is None else threshold,
                        logit_scale=self.defaults.logit_scale if logit_scale is None else logit_scale,
                        source=str(source) if isinstance(source, str | Path) else None,
                        backend=self.vision.options.backend,
                    )
        return results[0] if single else [results[i] for i in range(len(batch))]

    def _chunks(
        self, pictures: list[Image.Image], size: int, resize: ResizePolicy, batch_size: int
    ) -> Iterator[tuple[list[int], tuple[int, int]]]:
        """Indices of pictures that go through the model together, and the input's height and width."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, picture in enumerate(pictures):
            shape = input_size((picture.height, picture.width), size, resize, self.vision.config.patch_size)
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
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
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
