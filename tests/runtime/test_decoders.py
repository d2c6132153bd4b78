"""The runtime's decoders, in numpy and by the exported graphs, against float64."""

import tracemalloc

import numpy as np
import pytest
import torch
from gem_fast.kernels.decoding.reference import labels_reference, upsample

from gem_fast.runtime import GemRuntime
from gem_fast.runtime.decoders import GraphDecoder, NumpyDecoder, upsampling
from gem_fast.runtime.engine import synonym_rows
from gem_fast.runtime.runtime_options import RuntimeOptions
from tests.runtime.runtime_exports import exported

SHAPES = [((4, 6), (20, 30)), ((1, 1), (5, 7)), ((28, 37), (3, 2)), ((2, 3), (1, 1)), ((3, 1), (64, 63))]


@pytest.fixture(scope="module", params=["numpy", "graphs"])
def decoder(request):
    if request.param == "numpy":
        return NumpyDecoder()
    runtime = GemRuntime(exported(), threads=1)
    return GraphDecoder(runtime.graph("heatmaps"), runtime.graph("labels"))


def scores(classes, grid, seed=0):
    return (np.random.default_rng(seed).random((classes, *grid)) / 5).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 150, 1000])
@pytest.mark.parametrize(("grid", "size"), SHAPES, ids=str)
def test_labels_and_confidences(decoder, classes, grid, size):
    cosines = scores(classes, grid)
    truth = torch.from_numpy(cosines).double()
    expected, sure = labels_reference(truth, size, logit_scale=60.0, threshold=0.02)
    labels, confidence = decoder.labels(cosines, classes, size, 60.0, 0.02)
    assert (labels.shape, confidence.shape) == (size, size)
    assert labels.dtype == (np.uint8 if classes < 256 else np.uint16)
    assert confidence.dtype == np.float32
    np.testing.assert_allclose(confidence, sure, rtol=2e-5)
    # Two classes whose scores cross, or a confidence at the threshold, may fall to either side.
    best = upsample(truth, size).topk(2, dim=0).values
    clear = ((best[0] - best[1]) > 1e-6).numpy() & (np.abs(sure.numpy() - 0.02) > 1e-6)
    assert clear.mean() > 0.99
    assert np.array_equal(labels[clear], expected.numpy()[clear])


def test_background_classes_are_labelled_zero(decoder):
    cosines = scores(6, (4, 6))
    every, confidence = decoder.labels(cosines, 6, (40, 60), 100.0, 0.0)
    some, same = decoder.labels(cosines, 4, (40, 60), 100.0, 0.0)
    assert np.array_equal(confidence, same)
    assert np.array_equal(some, np.where(every > 4, 0, every))
    assert (some == 0).any()


def test_a_pixel_at_the_threshold_has_its_label(decoder):
    cosines = np.zeros((4, 2, 2), np.float32)
    cosines[1] = 1.0
    labels, confidence = decoder.labels(cosines, 4, (8, 8), 200.0, 1.0)
    assert (confidence == 1).all()
    assert (labels == 2).all()


@pytest.mark.parametrize(("grid", "size"), SHAPES, ids=str)
def test_heat_maps(decoder, grid, size):
    cosines = scores(5, grid)
    whole = upsample(torch.from_numpy(cosines).double(), size)
    low, high = whole.amin((1, 2), keepdim=True), whole.amax((1, 2), keepdim=True)
    flat = (high - low) < 1e-9
    maps = decoder.heatmaps(cosines, size)
    assert (maps.shape, maps.dtype) == ((5, *size), np.float32)
    np.testing.assert_allclose(maps, torch.where(flat, 0, (whole - low) / (high - low)), atol=2e-5)
    assert np.array_equal(decoder.scores(cosines), cosines)


def test_little_contrast_is_stretched_like_any(decoder):
    maps = decoder.heatmaps(np.arange(18, dtype=np.float32).reshape(2, 3, 3) * np.float32(2.0**-60), (6, 6))
    assert (maps.min((1, 2)) == 0).all()
    np.testing.assert_allclose(maps.max((1, 2)), 1, rtol=1e-6)


def test_a_flat_score_has_an_empty_heat_map(decoder):
    assert decoder.heatmaps(np.full((1, 2, 2), 0.3, np.float32), (8, 8)).max() == 0


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (1, 9), (7, 7), (5, 64), (64, 5), (3, 1)])
def test_upsampling_is_torchs(inputs, outputs):
    values = torch.rand(1, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(values[None], size=outputs, mode="linear")[0, 0]
    np.testing.assert_allclose(upsampling(inputs, outputs) @ values[0].numpy(), expected, atol=1e-6)


def test_a_thousand_classes_are_decoded_in_tiles():
    """Classes × height × width would be 1.2 GB."""
    cosines = scores(1500, (28, 28))
    tracemalloc.start()
    NumpyDecoder().labels(cosines, 1500, (448, 448), 100.0, 0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize(
    ("groups", "expected"),
    [([1, 1], [[0], [1]]), ([2, 1, 3], [[0, 1, 1], [2, 2, 2], [3, 4, 5]]), ([3], [[0, 1, 2]])],
    ids=str,
)
def test_rows_of_synonyms(groups, expected):
    rows = synonym_rows(groups)
    assert rows.dtype == np.int64
    assert rows.tolist() == expected


def test_the_host_decodes_in_numpy_and_a_gpu_by_the_graphs(monkeypatch):
    model = GemRuntime(exported(), threads=1)
    assert isinstance(model.decoder, NumpyDecoder)
    other = GemRuntime(exported(), threads=1)
    monkeypatch.setattr(RuntimeOptions, "on_nvidia", True)
    monkeypatch.setattr(RuntimeOptions, "providers", lambda *_: [("CPUExecutionProvider", {})])
    assert isinstance(other.decoder, GraphDecoder)
