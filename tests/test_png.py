"""Label images by the own encoder: what any reader gets back, and how many bytes they take."""

import io

import numpy as np
import pytest
from PIL import Image

from gem_fast.outputs import png_bytes
from gem_fast.png import label_png
from gem_fast.rendering import coloured, label_counts, palette


def blobs(height, width, classes, dtype=np.uint8):
    rows, columns = np.mgrid[:height, :width]
    return ((np.sin(rows / 31) + np.cos(columns / 47) + 2) / 4 * classes).astype(dtype)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (48, 65), (300, 200)], ids=str)
@pytest.mark.parametrize("classes", [1, 150, 255, 256, 65_535])
def test_labels_come_back(size, classes):
    labels = blobs(*size, classes, np.uint8 if classes < 256 else np.uint16)
    labels[0, 0], labels[-1, -1] = classes, 0
    with Image.open(io.BytesIO(label_png(labels, palette(256)))) as read:
        assert np.array_equal(np.asarray(read).astype(labels.dtype), labels)
        assert read.mode == ("P" if classes < 256 else "I;16")
        if classes < 256:
            assert np.array_equal(np.asarray(read.convert("RGB")), palette(256)[labels])


def test_noise_comes_back():
    labels = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(label_png(labels, palette(256))))), labels)


def test_files_stay_small():
    scores = np.random.default_rng(0).normal(size=(8, 12, 16)).astype(np.float32)
    maps = [np.asarray(Image.fromarray(each).resize((1600, 1200), Image.Resampling.BILINEAR)) for each in scores]
    labels = np.argmax(maps, axis=0).astype(np.uint8)
    picture = Image.fromarray(labels)
    picture.putpalette(palette(256).ravel().tolist())
    assert len(label_png(labels, palette(256))) < len(png_bytes(picture))


@pytest.mark.parametrize("classes", [3, 255, 300])
def test_counts_and_colours_of_labels(classes):
    labels = blobs(41, 63, classes, np.uint8 if classes < 256 else np.uint16)
    assert label_counts(labels, classes + 1).tolist() == [int((labels == i).sum()) for i in range(classes + 1)]
    assert np.array_equal(np.asarray(coloured(labels)), palette(classes + 1)[labels])
