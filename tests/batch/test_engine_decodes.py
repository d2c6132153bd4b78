"""Labels that an engine decodes itself, as one on a GPU does: the same files as from its scores."""

import filecmp
import pickle
from functools import partial

import numpy as np
import pytest
import torch

import gem_fast
from gem_fast.batch.processes import ProcessEngine
from gem_fast.decoding import KernelDecoder, SigmoidDecoder
from gem_fast.model import GemModel
from gem_fast.preprocess import normalised, normalised_tensor
from gem_fast.segmentation import is_alone
from tests.batch.replicas import scores as replica

SIZES = [(9, 14), (30, 21), (9, 14)]
WORDS = ["cat", "dog", "tree"]


@pytest.mark.parametrize("decoder", [KernelDecoder(), SigmoidDecoder(None, -1.0)], ids=["softmax", "sigmoid"])
@pytest.mark.parametrize(("scores", "classes"), [(1, 1), (4, 3), (3, 3), (300, 290)])
def test_maps_of_a_batch_are_the_labels_of_each_image(decoder, scores, classes):
    batch = torch.randn(3, scores, 4, 5, generator=torch.Generator().manual_seed(0)) * 0.03 + 0.2
    settings = (20.0, 0.3 if classes < 99 else 0.006)
    maps = decoder.label_maps(batch, classes, SIZES, *settings)
    for own, size, found in zip(batch, SIZES, maps, strict=True):
        if is_alone(scores):
            expected = decoder.heatmaps(own, size)[0] >= settings[1]
        else:
            expected = decoder.labels(own, classes, size, *settings)[0]
        assert found.dtype == (np.uint8 if classes < 256 else np.uint16)
        np.testing.assert_array_equal(found, expected)
        assert len(np.unique(found)) > 1


def test_pixels_are_normalised_to_the_same_bits_where_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 7, 5, 3), dtype=np.uint8)
    statistics = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    found = normalised_tensor(torch.from_numpy(pixels), *statistics)
    assert found.is_contiguous()
    np.testing.assert_array_equal(found.numpy(), normalised(pixels, *statistics))


@pytest.mark.parametrize("words", [WORDS, ["cat"]], ids=["classes", "alone"])
@pytest.mark.parametrize(
    ("options", "decoded"),
    [
        ({}, True),
        ({"label_size": "model", "overlays": False}, True),
        ({"label_size": "model"}, False),
        ({"heatmaps": True}, False),
        ({"window": 32, "stride": 32}, False),
        ({"format": "tar"}, True),
        ({"format": "parquet", "label_size": "model"}, True),
        ({"format": "parquet", "heatmaps": True}, False),
        ({"format": "coco"}, False),
    ],
    ids=str,
)
def test_files_are_those_of_an_engine_that_gives_scores(
    small_model, folder, tmp_path, monkeypatch, options, decoded, words
):
    """Heat maps, windows, overlays finer than the labels, and the scores of COCO still come from scores."""
    options = {"size": 64, "batch_size": 2, "workers": 1, "threshold": 0.3, **options}
    gem_fast.segment_files(small_model, folder, words, tmp_path / "scores", **options)
    asked, maps = [], KernelDecoder.label_maps

    def counted(decoder, scores, classes, sizes, *settings):
        asked.extend(sizes)
        return maps(decoder, scores, classes, sizes, *settings)

    monkeypatch.setattr(GemModel, "decodes", True)
    monkeypatch.setattr(KernelDecoder, "label_maps", counted)
    assert gem_fast.segment_files(small_model, folder, words, tmp_path / "labels", **options).failed == 0
    assert len(asked) == (3 if decoded else 0)
    names = sorted(str(path.relative_to(tmp_path / "scores")) for path in (tmp_path / "scores").rglob("*.*"))
    assert len(names) > (4 if "format" in options else 5)
    assert filecmp.cmpfiles(tmp_path / "scores", tmp_path / "labels", names, shallow=False)[0] == names


def test_labels_of_several_sizes_come_back_from_a_process():
    engine = ProcessEngine(pickle.dumps(partial(replica, "label")), "cpu", 1, 3)
    engine.start()
    try:
        pixels = np.zeros((3, 4, 4, 3), np.uint8)
        for sizes in (SIZES, SIZES[:1] * 3):
            assert [each.shape for each in engine(pixels, (4, 4), sizes)] == sizes
    finally:
        engine.close()
