"""Segmenting in a loop of one's own."""

import itertools
import threading
import time

import numpy as np
import pytest
from PIL import Image

from gem_fast import ImageError


def test_results_come_in_order_and_equal_segments(small_model, folder, picture):
    (folder / "empty.png").write_bytes(b"")
    images = [folder / "a.png", picture(48, 64), folder / "empty.png", picture(64, 48), str(folder / "b.jpg")]
    found = list(small_model.stream(images, ["cat", "dog"], size=64, batch_size=2, threshold=0.4))
    assert [type(each).__name__ for each in found] == [
        "Segmentation",
        "Segmentation",
        "ImageError",
        *["Segmentation"] * 2,
    ]
    assert "empty.png: the file is empty" in str(found[2])
    for image, result in zip(images, found, strict=True):
        if not isinstance(result, ImageError):
            own = small_model.segment(image, ["cat", "dog"], size=64, threshold=0.4)
            assert np.array_equal(own.labels, result.labels)
            assert own.source == result.source


@pytest.mark.parametrize("kind", ["text", "path", "picture", "array"])
def test_one_image_by_itself(small_model, folder, kind):
    path = folder / "a.png"
    image = {"text": str(path), "path": path, "picture": Image.open(path), "array": np.asarray(Image.open(path))}[kind]
    (found,) = small_model.stream(image, "cat", size=64)
    assert np.array_equal(found.labels, small_model.segment(path, "cat", size=64).labels)


def test_images_may_have_no_end(small_model, picture):
    """And no more is read than a little ahead; the reader stops with the loop."""
    taken = []

    def forever():
        for i in itertools.count():
            taken.append(i)
            yield picture(32, 32, i)

    threads = threading.active_count()
    stream = small_model.stream(forever(), "cat", size=32, batch_size=2)
    assert [next(stream).size for _ in range(5)] == [(32, 32)] * 5
    assert len(taken) <= 12
    stream.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("arguments", "reason"), [({"batch_size": 0}, "batch_size"), ({"size": 0}, "size"), ({"threshold": 2}, "threshold")]
)
def test_wrong_arguments_are_told_at_once(small_model, arguments, reason):
    with pytest.raises(ValueError, match=reason):
        small_model.stream(iter([]), "cat", **arguments)


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_what_the_iterable_raises_is_raised_behind_what_came_before(small_model, picture, before):
    def broken():
        yield from (picture(32, 32, seed) for seed in range(before))
        raise KeyError("gone")

    found = []
    with pytest.raises(KeyError, match="gone"):
        found.extend(each.size for each in small_model.stream(broken(), "cat", size=32, batch_size=2))
    assert found == [(32, 32)] * before
