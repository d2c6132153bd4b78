"""Images one after another, read ahead, worked on a few at a time. Needs no torch."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
from PIL import Image

from .ahead import ahead
from .images import ImageError, ImageLike, as_batch, is_tensor

Ready = TypeVar("Ready")
Result = TypeVar("Result")


def stream(
    images: "Iterable[ImageLike] | ImageLike",
    load: Callable[[ImageLike], Ready],
    results: Callable[[list[Ready]], list[Result]],
    window: int,
) -> Iterator[Result | ImageError]:
    """The result of each image in turn, or why it has none.

    Args:
        images: any number of them, or one by itself.
        load: an image to what `results` takes, in a thread that reads ahead; ImageError if it can't be used.
        results: of a few images, in their order.
        window: how many are worked on at a time, and read ahead.
    """

    if isinstance(images, str | os.PathLike | Image.Image | np.ndarray) or is_tensor(images):
        images, _ = as_batch(images)

    def read() -> Iterator[Ready | ImageError]:
        for image in images:
            try:
                yield load(image)
            except ImageError as error:
                yield error

    coming = ahead(read(), window)
    ended: Exception | None = None
    while ended is None:
        found: list[Ready | ImageError] = []
        try:
            found.extend(islice(coming, window))
        except Exception as error:  # of the iterable's: those before it come first
            ended = error
        if not found:
            break
        done = iter(results([each for each in found if not isinstance(each, ImageError)]))
        yield from (each if isinstance(each, ImageError) else next(done) for each in found)
    if ended is not None:
        raise ended
