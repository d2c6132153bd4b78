"""The native score decoding beside the rest of torch: threads, what it serves by itself, graphs."""

import pytest
import torch
from gem_fast.kernels import cpu_library, decode_heatmaps, decode_labels
from gem_fast.kernels.decoding import cpu
from gem_fast.kernels.decoding.labels import labels_in_tiles

from tests.kernels.native_decoding import decode, make_scores

MISSING = cpu_library.why_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"the native kernels can't serve: {MISSING}")


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_any_number_of_threads_gives_the_same(threads, count):
    scores = make_scores(3, 7, 9)
    expected = [decode(scores, (200, 31), None), cpu.cpu_decode_heatmaps(scores, (200, 31))]
    threads(count)
    results = [decode(scores, (200, 31), None), cpu.cpu_decode_heatmaps(scores, (200, 31))]
    assert all(map(torch.equal, results[0], expected[0]))
    assert torch.equal(results[1], expected[1])


def test_empty_outputs():
    assert [x.shape for x in decode(make_scores(3, 2, 2), (0, 5), None)] == [(0, 5), (0, 5)]
    assert cpu.cpu_decode_heatmaps(make_scores(3, 2, 2), (5, 0)).shape == (3, 5, 0)


def test_a_path_that_is_not_here_is_named():
    with pytest.raises(ValueError, match=r"'avx512_bf16'.*avx2"):
        decode(make_scores(3, 2, 2), (4, 4), "avx512_bf16")


@pytest.fixture
def calls(monkeypatch):
    """Names of the library's functions, as they are called."""
    names = []
    monkeypatch.setattr(cpu, "call", lambda name, *rest: names.append(name) or cpu_library.call(name, *rest))
    return names


@pytest.mark.parametrize(
    ("scores", "labels", "maps"),
    [
        (make_scores(3, 2, 2), 1, 1),
        (make_scores(3, 2, 2, dtype=torch.bfloat16), 1, 0),
        (make_scores(3, 2, 2, dtype=torch.float64), 0, 0),
        (make_scores(3, 2, 2).requires_grad_(), 0, 0),
        (torch.zeros(3, 2, 2, device="meta"), 0, 0),
    ],
    ids=["float32", "bfloat16", "float64", "with-gradient", "elsewhere"],
)
def test_what_it_serves_by_itself(calls, scores, labels, maps):
    """Everything else goes the torch way, in the type of the scores."""
    assert decode_labels(scores, (9, 9))[1].dtype == torch.promote_types(scores.dtype, torch.float32)
    assert decode_heatmaps(scores, (9, 9)).dtype == scores.dtype
    assert calls == ["gem_fast_decode_labels"] * labels + ["gem_fast_decode_heatmaps"] * maps


def test_without_the_library_torch_serves(monkeypatch):
    scores, size = make_scores(20, 5, 6), (40, 50)
    native = *decode_labels(scores, size), decode_heatmaps(scores, size)
    monkeypatch.setattr(cpu_library, "_MISSING", "no compiler")
    assert cpu.why_not(scores, torch.float32) == "no compiler"
    for result, expected in zip((*decode_labels(scores, size), decode_heatmaps(scores, size)), native, strict=True):
        torch.testing.assert_close(result, expected, rtol=2e-5, atol=2e-6)
    with pytest.raises(ValueError, match="no compiler"):
        decode(scores, size, None)


def test_traced_graphs_hold_torch_operations():
    """A native call could not be seen in an exported graph."""

    class Decode(torch.nn.Module):
        def forward(self, scores):
            return *decode_labels(scores, (9, 8)), decode_heatmaps(scores, (9, 8))

    scores = make_scores(4, 3, 3)
    exported = torch.export.export(Decode(), (scores,))
    assert not [node for node in exported.graph.nodes if "gem_fast" in str(node.target)]
    expected = *labels_in_tiles(scores, (9, 8), logit_scale=100.0, threshold=0.0), decode_heatmaps(scores, (9, 8))
    for result, eager in zip(exported.module()(scores), expected, strict=True):
        torch.testing.assert_close(result, eager, rtol=1e-6, atol=1e-6)
