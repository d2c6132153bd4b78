"""CUDA graphs of the forward, on the CPU: a stand-in records what is called, and computes it again in place."""

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

import pytest
import torch

import gem_fast
from gem_fast import graphs
from gem_fast.errors import ModelError
from gem_fast.graphs import CudaRecorder, GraphedForward, graphs_of
from gem_fast.options import GemOptions
from gem_fast.towers.vision_config import VisionConfig
from gem_fast.towers.vit import GemVisionTransformer


class FakeRecorder:
    """Results stay where they were recorded, as those of a graph do, and no two turns may overlap."""

    def __init__(self, reason=None):
        self.recorded, self.replayed, self.settled, self.alone, self._busy = 0, 0, 0, [], Lock()
        self.reason = reason

    def why_not(self, device):
        return self.reason

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


@pytest.mark.parametrize("what", ["backend", "tf32"])
def test_what_is_set_for_the_process_is_another_graph(vision, recorder, monkeypatch, what):
    graphed, pixels = GraphedForward(recorder), image(1, 3, 32, 32)
    graphed(vision, pixels)
    if what == "backend":
        monkeypatch.setenv("GEM_FAST_BACKEND", "reference")
    else:
        monkeypatch.setattr(graphs, "tf32_is_allowed", lambda: "otherwise")
    assert same(graphed(vision, pixels), vision(pixels))
    assert recorder.recorded == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda vision: vision.double().float(),
        lambda vision: vision.bfloat16(),
        lambda vision: vision.position_embedding.mul_(2),
        lambda vision: setattr(vision.ln_post, "weight", torch.nn.Parameter(torch.full((32,), 3.0))),
        lambda vision: setattr(vision.blocks[1].ln_1.bias, "data", torch.full((32,), 3.0)),
    ],
    ids=["there and back", "cast", "positions", "another parameter", "other memory"],
)
def test_weights_elsewhere_are_recorded_again(vision, recorder, change):
    graphed, pixels = GraphedForward(recorder), image(1, 3, 40, 32)
    graphed(vision, pixels)
    change(vision)
    assert same(graphed(vision, pixels), vision(pixels))
    assert (recorder.recorded, recorder.settled, len(graphed._graphs)) == (2, 1, 1)
    assert recorder.alone == [True, True]  # the memory that both left is not taken again


def test_of_another_model_nothing_is_taken(vision, recorder):
    graphed, pixels, other = GraphedForward(recorder), image(1, 3, 32, 32), copy.deepcopy(vision)
    other.ln_post.weight.mul_(2)
    for each in (vision, other, vision):
        assert same(graphed(each, pixels), each(pixels))
    assert recorder.recorded == 3


def test_unasked_a_shape_is_recorded_when_it_comes_again(vision, recorder):
    graphed = GraphedForward(recorder, unasked=True)
    for seed, height in enumerate((32, 40, 48, 40, 40)):
        pixels = image(1, 3, height, 32, seed=seed)
        assert same(graphed(vision, pixels), vision(pixels))
    assert (recorder.recorded, recorder.replayed) == (1, 2)


def test_unasked_shapes_in_rotation_do_not_take_each_others_place(vision, recorder, monkeypatch):
    monkeypatch.setattr(graphs, "PATIENCE", 5)
    graphed = GraphedForward(recorder, most=2, unasked=True)
    for _ in range(5):
        for count in (1, 2, 3):
            graphed(vision, image(count, 3, 32, 32))
    assert recorder.recorded == 2
    for _ in range(3):
        assert same(graphed(vision, image(3, 3, 32, 32)), vision(image(3, 3, 32, 32)))
    assert (recorder.recorded, len(graphed._graphs)) == (3, 2)


def test_unasked_the_shape_that_came_longest_ago_is_forgotten(vision, recorder, monkeypatch):
    monkeypatch.setattr(graphs, "_REMEMBERED", 2)
    graphed = GraphedForward(recorder, unasked=True)
    for count, recorded in ((1, 0), (2, 0), (3, 0), (1, 0), (3, 1), (2, 1)):
        graphed(vision, image(count, 3, 32, 32))
        assert recorder.recorded == recorded


@pytest.mark.parametrize("reason", ["a large batch", "hooks", "hooks before", "another capture"])
def test_unasked_what_a_graph_would_not_serve_is_launched(vision, monkeypatch, reason):
    recorder, called = FakeRecorder(reason if reason == "another capture" else None), []
    if reason == "a large batch":
        monkeypatch.setattr(graphs, "MOST_TOKENS", 3 * 16 - 1)
    if reason == "hooks":
        vision.ln_post.register_forward_hook(lambda *_: called.append(1))
    if reason == "hooks before":
        vision.ln_post.register_forward_pre_hook(lambda *_: called.append(1))
    graphed, pixels = GraphedForward(recorder, unasked=True), image(3, 3, 32, 32)
    for _ in range(3):
        assert same(graphed(vision, pixels), vision(pixels))
    assert recorder.recorded == 0
    if reason == "a large batch":
        for _ in range(2):
            graphed(vision, pixels[:2])
        assert recorder.recorded == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("none left"), RuntimeError("operation not permitted\nsee")])
def test_unasked_what_cannot_be_recorded_is_launched(vision, error):
    class Failing(FakeRecorder):
        def record(self, call, alone):
            self.recorded += 1
            raise error

    recorder, pixels = Failing(), image(1, 3, 32, 32)
    graphed = GraphedForward(recorder, unasked=True)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(4):
            assert same(graphed(vision, pixels), vision(pixels))
    assert recorder.recorded == 1
    told = [] if isinstance(error, torch.OutOfMemoryError) else ["a CUDA graph: operation not permitted; it is"]
    assert [text in str(each.message) for text, each in zip(told, warned, strict=True)] == [True] * len(told)
    with pytest.raises(RuntimeError, match=r"none left|not permitted"):
        GraphedForward(recorder)(vision, pixels)


def test_they_serve_unasked_where_they_were_found_right(monkeypatch):
    cuda = torch.device("cuda", 0)
    assert graphs_of(None, torch.device("cpu")) is None
    assert graphs_of(False, cuda) is None
    monkeypatch.setattr(torch.version, "hip", None)
    assert graphs_of(None, cuda)._unasked
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert graphs_of(None, cuda) is None


def test_the_least_recently_used_go_first(vision, recorder):
    graphed = GraphedForward(recorder, most=2)
    for count in (1, 2, 1, 3, 1, 2):
        graphed(vision, image(count, 3, 32, 32))
    assert recorder.alone == [True, False, False, False]  # of 1, 2, 3, and of 2 again
    assert len(graphed._graphs) == 2
    assert recorder.settled == 2  # before memory is given up that may be read still


def test_positions_that_others_replace_meanwhile_are_recorded_again(vision):
    class Disturbed(FakeRecorder):
        def record(self, call, alone):
            found = super().record(call, alone)
            if self.recorded == 1:
                vision._kept.clear()
            return found

    recorder, pixels = Disturbed(), image(1, 3, 40, 32)
    graphed = GraphedForward(recorder)
    assert same(graphed(vision, pixels), vision(pixels))
    (graph,) = graphed._graphs.values()
    assert recorder.recorded == 2
    assert graph.positions is vision.positions(5, 4)


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
    graphed = GraphedForward(recorder, most=3, unasked=True)
    for _ in range(2):
        graphed(vision, image(1, 3, 32, 32))
    for other in (copy.deepcopy(graphed), pickle.loads(pickle.dumps(graphed))):
        assert not other._graphs
        assert (other._most, other._unasked) == (3, True)


def test_a_model_runs_by_them(recorder, monkeypatch):
    plain = gem_fast.load("gem-tiny")
    assert plain.graphs is None
    model = replace(plain, graphs=GraphedForward(recorder))
    pixels = image(1, 3, 64, 64)
    assert torch.equal(model.features(pixels), plain.features(pixels))
    assert same(model.features(pixels, original=True), plain.features(pixels, original=True))
    assert recorder.replayed == 2
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # a trace takes what is launched
    torch.testing.assert_close(model.features(pixels), plain.features(pixels))
    assert recorder.replayed == 2


def test_other_devices_are_refused(vision):
    with pytest.raises(ModelError, match="graph=True: it takes a CUDA device, and the model is on cpu"):
        gem_fast.load("gem-tiny", graph=True)
    with pytest.raises(ModelError, match="CUDA device"):
        GraphedForward(CudaRecorder())(vision, image(1, 3, 32, 32))
