"""Segmentation of images one after another, read ahead. Needs no torch."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .ahead import ahead
from .images import ImageError, ImageLike, load_image
from .preprocess import ResizePolicy
from .query import Query
from .segmentation import Segmentation

if TYPE_CHECKING:
    from .segmenter import Segmenter


def stream(
    model: "Segmenter",
    images: Iterable[ImageLike],
    query: Query,
    *,
    size: int | None,
    resize: ResizePolicy | None,
    batch_size: int,
) -> Iterator[Segmentation | ImageError]:
    """What `Segmenter.stream` gives, its arguments checked."""

    def read() -> Iterator[tuple[Image.Image, tuple[int, int], str | None] | ImageError]:
        for image in images:
            try:
                picture = load_image(image)
                shape = model.input_size((picture.height, picture.width), size, resize)
            except ImageError as error:
                yield error
            else:
                yield picture, shape, str(image) if isinstance(image, str | Path) else None

    coming = ahead(read(), batch_size)
    while window := list(islice(coming, batch_size)):
        found: list[Segmentation | ImageError] = [each for each in window if isinstance(each, ImageError)]
        good = [each for each in window if not isinstance(each, ImageError)]
        results: dict[int, Segmentation] = {}
        pictures, shapes = [each[0] for each in good], [each[1] for each in good]
        for chunk in model.chunks(pictures, shapes, batch_size):
            shape = shapes[chunk[0]]
            patches = model.patch_features(np.stack([model.pixels(pictures[i], shape) for i in chunk]), shape)
            scores = model.scores(patches, range(len(chunk)), query.words, query.groups)
            for i, own in zip(chunk, scores, strict=True):
                results[i] = query.result(pictures[i], own, model.decoder, good[i][2])
        errors, order = iter(found), iter(results[i] for i in range(len(good)))
        yield from (next(errors) if isinstance(each, ImageError) else next(order) for each in window)
