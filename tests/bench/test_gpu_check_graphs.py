"""The cases of CUDA graphs on the CPU, where a stand-in records and replays."""

import pytest
import torch
from gem_fast.bench.gpu_check import graphs
from gem_fast.bench.gpu_check.verify import RIGHT, WRONG, verify

from tests.test_graphs import FakeRecorder

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(graphs, "SHAPES", ((1, 64), (2, 96)))
    with torch.inference_mode():
        yield


def verdicts(recorder):
    problem = graphs.graphs_problem("float32", CPU, "ViT-S-32-alt", "sdpa", recorder)
    return {check.provider: check.verdict for check in verify(problem)}


def test_replays_are_held_against_launches():
    recorder = FakeRecorder()
    assert verdicts(recorder) == dict.fromkeys(("replayed", "second stream", "two threads", "launched"), RIGHT)
    assert recorder.recorded == 2


def test_a_graph_that_does_not_run_again_is_wrong():
    class Stale(FakeRecorder):
        def record(self, call, alone):
            replay, results = super().record(call, alone)
            replay()
            return lambda: None, results

    found = verdicts(Stale())
    assert found.pop("launched") == RIGHT
    assert set(found.values()) == {WRONG}
