"""CUDA graphs of the forward, on the CPU: a stand-in records what is called, and computes it again in place."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

import pytest
import torch

import gem_fast
from gem_fast.errors import ModelError
from gem_fast.graphs import CudaRecorder, GraphedForward
from gem_fast.options import GemOptions
from gem_fast.towers.vision_config import VisionConfig
from gem_fast.towers.vit import GemVisionTransformer


class FakeRecorder:
    """Results stay where they were recorded, as those of a graph do, and no two turns may overlap."""

    def __init__(self):
        self.recorded, self.replayed, self.settled, self.alone, self._busy = 0, 0, 0, [], Lock()

    @contextmanager
    def turn(self, device):
        assert self._busy.acquire(blocking=False), "two threads have the buffers"
        try:
            yield
        finally:
            self._busy.release()

    def settle(self):
        self.settled += 1

    def record(self, call, alone):
        self.recorded += 1
        self.alone.append(alone)
        results = type(found := call())(*(None if each is None else each.clone() for each in found))

        def replay():
            self.replayed += 1
            for kept, new in zip(results, call(), strict=True):
                if kept is not None:
                    kept.copy_(new)

        for each in results:
            if each is not None:
                each.fill_(torch.nan)  # recording computes nothing
        return replay, results


@pytest.fixture
def vision():
    torch.manual_seed(0)
    model = GemVisionTransformer(VisionConfig(32, 3, 2, 64, 8, (4, 4), 16), GemOptions(gem_blocks=2))
    for value in model.parameters():
        value.copy_(torch.randn(value.shape) * 0.2)
    return model


@pytest.fixture
def recorder():
    return FakeRecorder()


def image(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(found, expected):
    pairs = list(zip(found, expected, strict=True))
    assert all((a is None) == (b is None) for a, b in pairs)
    return all(torch.equal(a, b) for a, b in pairs if a is not None)


def test_each_shape_is_recorded_once_and_results_are_the_callers(vision, recorder):
    graphed = GraphedForward(recorder)
    sizes = [(1, 3, 32, 32), (2, 3, 32, 48), (1, 3, 32, 32), (2, 3, 32, 48), (1, 3, 32, 32)]
    images = [image(*size, seed=seed) for seed, size in enumerate(sizes)]
    found = [graphed(vision, pixels) for pixels in images]
    assert (recorder.recorded, recorder.replayed) == (2, 5)
    for pixels, features in zip(images, found, strict=True):
        assert same(features, vision(pixels))


def test_what_changes_the_result_is_another_graph(vision, recorder):
    graphed, pixels = GraphedForward(recorder), image(1, 3, 32, 32)
    assert same(graphed(vision, pixels, original=True), vision(pixels, original=True))
    assert same(graphed(vision, pixels), vision(pixels))
    vision.method = gem_fast.method.methods()["maskclip"]
    assert same(graphed(vision, pixels), vision(pixels))
    vision.backend = "reference"
    assert same(graphed(vision, pixels), vision(pixels))
    assert same(graphed(vision, pixels.double()), vision(pixels))
    assert recorder.recorded == 5


def test_an_environment_that_names_a_backend_is_another_graph(vision, recorder, monkeypatch):
    graphed, pixels = GraphedForward(recorder), image(1, 3, 32, 32)
    graphed(vision, pixels)
    monkeypatch.setenv("GEM_FAST_BACKEND", "reference")
    assert same(graphed(vision, pixels), vision(pixels))
    assert recorder.recorded == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda vision: vision.double().float(),
        lambda vision: vision.bfloat16(),
        lambda vision: vision.position_embedding.mul_(2),
    ],
    ids=["there and back", "cast", "positions"],
)
def test_weights_elsewhere_are_recorded_again(vision, recorder, change):
    graphed, pixels = GraphedForward(recorder), image(1, 3, 40, 32)
    graphed(vision, pixels)
    change(vision)
    assert same(graphed(vision, pixels), vision(pixels))
    assert (recorder.recorded, recorder.settled, len(graphed._graphs)) == (2, 2, 1)
    assert recorder.alone == [True, True]  # the memory that both left is not taken again


def test_the_least_recently_used_go_first(vision, recorder):
    graphed = GraphedForward(recorder, most=2)
    for count in (1, 2, 1, 3, 1, 2):
        graphed(vision, image(count, 3, 32, 32))
    assert recorder.alone == [True, False, False, False]  # of 1, 2, 3, and of 2 again
    assert len(graphed._graphs) == 2


def test_threads_do_not_mix(vision, recorder):
    graphed = GraphedForward(recorder)
    images = [image(1, 3, 32, 32 + 8 * (seed % 2), seed=seed) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pixels: graphed(vision, pixels), images))
    assert recorder.recorded == 2
    with torch.inference_mode():
        assert all(same(features, vision(pixels)) for features, pixels in zip(found, images, strict=True))


def test_a_failure_is_told_and_nothing_of_it_is_kept(vision, recorder):
    class Failing(FakeRecorder):
        def record(self, call, alone):
            raise RuntimeError("out of memory")

    graphed = GraphedForward(Failing())
    with pytest.raises(RuntimeError, match="out of memory"):
        graphed(vision, image(1, 3, 32, 32))
    assert not graphed._graphs
    with pytest.raises(ValueError, match="multiples of the patch"):
        graphed(vision, image(1, 3, 33, 32))


def test_copies_and_pickles_have_no_graphs(vision, recorder):
    graphed = GraphedForward(recorder)
    graphed(vision, image(1, 3, 32, 32))
    for other in (copy.deepcopy(graphed), pickle.loads(pickle.dumps(graphed))):
        assert not other._graphs


def test_a_model_runs_by_them(recorder):
    plain = gem_fast.load("gem-tiny")
    assert plain.graphs is None
    model = replace(plain, graphs=GraphedForward(recorder))
    pixels = image(1, 3, 64, 64)
    assert torch.equal(model.features(pixels), plain.features(pixels))
    assert same(model.features(pixels, original=True), plain.features(pixels, original=True))
    assert recorder.replayed == 2


def test_other_devices_are_refused(vision):
    with pytest.raises(ModelError, match="graph=True takes a CUDA device, and the model is on cpu"):
        gem_fast.load("gem-tiny", graph=True)
    with pytest.raises(ModelError, match="CUDA device"):
        GraphedForward(CudaRecorder())(vision, image(1, 3, 32, 32))
