"""Sliding windows on exported models, against the torch engine's and against the plain way."""

import json

import numpy as np
import pytest
from gem_fast.bench import memory
from PIL import Image

from gem_fast import ImageError
from gem_fast.batch import segment_files
from gem_fast.runtime import GemRuntime
from tests.runtime.runtime_exports import engine, exported

PROMPTS = ["cat", ("dog", "house"), "tree"]
SLIDING = {"window": 64, "stride": 32, "size": 96, "threshold": 0.0}


@pytest.fixture(scope="module")
def dynamic():
    return GemRuntime(exported(dynamic_size=True), threads=1)


@pytest.fixture(scope="module")
def fixed():
    return GemRuntime(exported((64, 64), (96, 96)), threads=1)


@pytest.fixture
def images(picture):
    return [picture(96, 144, 1), picture(130, 96, 2), picture(50, 40, 3)]


def assert_same(found, truth):
    for ours, theirs in zip(found, truth, strict=True):
        assert ours.size == theirs.size
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=2e-6)
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=5e-5)
        np.testing.assert_allclose(ours.heatmaps, theirs.heatmaps, atol=5e-5)
        assert (ours.labels == theirs.labels).mean() >= 0.9999


def test_a_dynamic_export_has_the_engines_windows(dynamic, images):
    truth = engine().segment(images, PROMPTS, **SLIDING)
    assert_same(dynamic.segment(images, PROMPTS, **SLIDING, batch_size=3), truth)
    plain = dynamic.segment(images, PROMPTS, size=96, threshold=0.0)
    assert abs(truth[0].confidence - plain[0].confidence).max() > 1e-2


def test_an_exported_size_serves_windows_of_that_size_on_any_image(fixed, images):
    assert_same(fixed.segment(images, PROMPTS, **SLIDING), engine().segment(images, PROMPTS, **SLIDING))
    with pytest.raises(ValueError, match=r"windows would be 48x48 .* exported were 64x64, 96x96"):
        fixed.segment(images, PROMPTS, **(SLIDING | {"window": 48}))


NO_SUCH = r"windows would be {} \(height x width\), and exported were 64x64, 96x96: export that size"


def test_an_image_whose_windows_have_no_exported_size_fails_alone(fixed, picture, tmp_path):
    """A wide one takes windows of 96×128, a square one a single input of 96×96."""
    images = [picture(96, 96, 1), picture(96, 200, 2), picture(200, 96, 3), picture(50, 50, 4)]
    found = list(fixed.stream(images, PROMPTS, window=128, size=96))
    assert [isinstance(each, ImageError) for each in found] == [False, True, True, False]
    with pytest.raises(ImageError, match=NO_SUCH.format("96x128")):
        fixed.segment(images, PROMPTS, window=128, size=96)
    for name, image in zip("abcd", images, strict=True):
        image.save(tmp_path / f"{name}.png")
    segment_files(fixed, tmp_path, PROMPTS, tmp_path / "out", workers=1, window=128, size=96)
    records = [json.loads(line) for line in (tmp_path / "out" / "summary.jsonl").read_text().splitlines()]
    told = [None, f"{tmp_path / 'b.png'}: {found[1]}", f"{tmp_path / 'c.png'}: {found[2]}", None]
    assert [each.get("error") for each in records] == told


@pytest.mark.parametrize(
    ("settings", "taken"),
    [
        ({"window": 48}, "48x48"),
        ({"window": 128, "size": 128}, "128x128"),
        ({"window": 128, "size": 72}, "72x72"),
        ({"window": 128, "size": 128, "resize": "squash"}, "128x128"),
        ({"window": 48, "resize": "exact"}, "48x48"),
    ],
    ids=str,
)
def test_windows_that_no_image_can_have_are_told_before_the_first(fixed, settings, taken):
    def never():
        raise AssertionError("an image was read")
        yield

    with pytest.raises(ValueError, match=NO_SUCH.format(taken)) as error:
        fixed.stream(never(), PROMPTS, **settings)
    assert not isinstance(error.value, ImageError)


def test_a_graph_that_resizes_gets_windows_of_the_resized_image(images):
    runtime = GemRuntime(exported((64, 64), with_preprocess=True), threads=1)
    found, truth = (each.segment(images, PROMPTS, **SLIDING) for each in (runtime, engine()))
    for ours, theirs in zip(found, truth, strict=True):
        np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-3)


@pytest.mark.parametrize("window", [96, 1000])
def test_one_window_over_the_image_is_bit_for_bit_as_without(dynamic, fixed, picture, window):
    for runtime in (dynamic, fixed):
        plain, windowed = (
            runtime.segment(picture(60, 60), PROMPTS, size=96, resize="squash", **chosen)
            for chosen in ({}, {"window": window})
        )
        assert np.array_equal(plain.all_scores, windowed.all_scores)
        assert np.array_equal(plain.labels, windowed.labels)
        assert np.array_equal(plain.confidence, windowed.confidence)


def test_files_have_the_labels_of_segment(dynamic, folder, tmp_path):
    segment_files(dynamic, folder, PROMPTS, tmp_path / "out", workers=1, **SLIDING)
    for name in ("a.png", "b.jpg", "sub/c.png"):
        written = Image.open((tmp_path / "out" / name).with_suffix(".labels.png"))
        assert np.array_equal(np.asarray(written), dynamic.segment(folder / name, PROMPTS, **SLIDING).labels)


def test_without_windows_a_large_photo_at_its_own_size_is_refused(dynamic, picture):
    with pytest.raises(ImageError, match="tokens of at most 65,536"):
        dynamic.segment(picture(2500, 2500), PROMPTS, resize="exact")


@pytest.mark.filterwarnings("ignore:this model's vocabulary does not hold")
@pytest.mark.skipif(memory.resident_mb() is None, reason="there is no /proc")
def test_a_photo_at_its_own_size_takes_no_memory_of_classes_times_pixels(dynamic, picture):
    """64 classes at 600×800 are 123 MB; its pixels, labels and confidences are 5."""
    words = [f"{place} cat" for place in range(64)]
    photo, query = picture(600, 800), {"resize": "exact", "window": 96, "stride": 96, "batch_size": 2}
    dynamic.segment(picture(200, 200), words, **query)  # graphs and embeddings are loaded once

    def decoded():
        result = dynamic.segment(photo, words, **query)
        return result.labels, result.confidence

    assert memory.peak_growth(decoded) < 60
