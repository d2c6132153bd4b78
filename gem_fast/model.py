"""The model as users hold it: images and prompts in, segmentations out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from .checkpoint import Checkpoint, ModelError, read_checkpoint
from .images import ImageLike, load_image
from .options import Defaults, GemOptions
from .packing import pack_vision
from .preprocess import ResizePolicy, input_size, to_pixels
from .scores import class_scores
from .segmentation import Segmentation
from .text import Prompts, TextClass, TextEncoder, parse_classes, parse_templates
from .vision import GemVisionTransformer, VisionFeatures

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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

    @torch.inference_mode()
    def features(self, pixels: Tensor, original: bool = False) -> VisionFeatures | Tensor:
        """GEM's patch features of normalised pixels.

        Args:
            pixels: `[B, 3, H, W]`, normalised with the model's mean and std, sides multiples of the patch.
            original: also finish the unchanged path.

        Returns:
            L2-normalised patch features `[B, h, w, E]`; with `original`, `VisionFeatures` with the unchanged path's
            patch and class features too.
        """
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
            size: side of the model's input in pixels, by default `defaults.size`; see `resize`.
            resize: `"shorter"` (side, aspect kept), `"squash"` (square) or `"exact"` (the image's own size), each
                rounded to multiples of the patch.
            threshold: confidence below which a pixel is background; 0 for none. By default `defaults.threshold`, or
                `defaults.heatmap_threshold` for a single prompt, whose confidence is its heat map.
            logit_scale: multiplier of the cosine before the softmax over classes.
            templates: `"photo"` (`a photo of a {}.`), `"imagenet"` (80 of them), or own ones.
            batch_size: images in one forward; those of the same input size go together.

        Returns:
            A `Segmentation`, or a list of them in the order of the images. They hold the original images: for more
            files than fit in memory use `gem_fast.segment_files`.

        Raises:
            ImageError: an image can't be read. ValueError: an argument is wrong. The message says what would be right.
        """
        batch, single = as_batch(images)
        if size is not None and size < 1:
            raise ValueError(f"size must be a positive number of pixels, got {size}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in 0..1, got {threshold}")
        classes = prompts_for_each(prompts, len(batch))
        template_set = parse_templates(templates)
        words = {
            each: self.text.encode([word for c in each for word in c.synonyms], template_set)
            for each in dict.fromkeys(classes)
        }
        pictures = [load_image(image) for image in batch]
        side, patch = size or self.defaults.size, self.vision.config.patch_size
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, picture in enumerate(pictures):
            groups[input_size((picture.height, picture.width), side, resize, patch)].append(i)
        results: dict[int, Segmentation] = {}
        for shape, members in groups.items():
            for start in range(0, len(members), batch_size):
                chunk = members[start : start + batch_size]
                pixels = torch.stack([to_pixels(pictures[i], shape, self.mean, self.std) for i in chunk])
                patches = self.features(pixels)
                for i, features in zip(chunk, patches, strict=True):
                    given = self.defaults.heatmap_threshold if len(classes[i]) == 1 else self.defaults.threshold
                    results[i] = Segmentation(
                        image=pictures[i],
                        classes=tuple(c.name for c in classes[i]),
                        cosines=class_scores(features[None], words[classes[i]], [len(c.synonyms) for c in classes[i]])[
                            0
                        ],
                        threshold=given if threshold is None else threshold,
                        logit_scale=logit_scale or self.defaults.logit_scale,
                        source=str(batch[i]) if isinstance(batch[i], str | Path) else None,
                    )
        return results[0] if single else [results[i] for i in range(len(batch))]


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


def load(
    name: str,
    pretrained: str | None = None,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
    text_cache: str | Path | None = None,
    **options: Any,
) -> GemModel:
    """Load a model with GEM's path.

    Args:
        name: `"gem-tiny"`, which is part of this package, or an open_clip ViT such as `"ViT-B-16"`.
        pretrained: open_clip's tag of the weights, such as `"openai"` (downloaded once), or `"random"`.
        weights: a local `.safetensors` or `.pt` state dict with open_clip's names, instead of a tag. OpenAI's and
            MetaCLIP's weights need the `-quickgelu` name of the model.
        device: where to run, such as `"cpu"`, `"cuda"` or `"mps"`.
        dtype: float32, bfloat16 or float16 of the vision transformer; text is encoded in float32.
        text_cache: folder in which to keep text embeddings between runs.
        **options: fields of `GemOptions`, such as `gem_blocks=6` or `iterations=1`.

    Raises:
        ModelError: the model, weights, device or dtype can't be used; the message says why and what can.
    """
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in DTYPES.values():
        raise ModelError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
    where = usable_device(device)
    unknown = set(options) - set(GemOptions.__dataclass_fields__)
    if unknown:
        raise ModelError(f"unknown options {sorted(unknown)}; known are {', '.join(GemOptions.__dataclass_fields__)}")
    checkpoint = read_checkpoint(name, pretrained, weights)
    return build(checkpoint, where, chosen, text_cache, replace(GemOptions(**checkpoint.options), **options))


def build(
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
    text_cache: str | Path | None,
    options: GemOptions,
) -> GemModel:
    """Pack a checkpoint's vision weights and put the model on its device."""
    vision = pack_vision(checkpoint.vision_state, checkpoint.vision_config, options).to(device, dtype)
    text = TextEncoder(
        checkpoint.text.to(device), checkpoint.tokenizer, known_tokens=checkpoint.known_tokens, cache=text_cache
    )
    return GemModel(
        name=checkpoint.name,
        source=checkpoint.source,
        vision=vision,
        text=text,
        defaults=checkpoint.defaults,
        mean=checkpoint.mean,
        std=checkpoint.std,
    )


def usable_device(device: str | torch.device) -> torch.device:
    """The device, after making sure that it can hold a tensor."""
    try:
        where = torch.device(device)
        torch.zeros(1, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"device {str(device)!r} can't be used here: {str(error).splitlines()[0]}") from error
    return where
