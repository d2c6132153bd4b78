"""`gpu_check` on the kernels themselves, in Triton's interpreter or on the GPU; `test_gpu_check.py` runs this file."""

import pytest
import torch
from gem_fast.bench.gpu_check import attention, decoding, first_use, forward, normalization
from gem_fast.bench.gpu_check.attention import Setting, attention_problem
from gem_fast.bench.gpu_check.verify import FAILED, RIGHT, WRONG, verify
from gem_fast.kernels.attention.triton.call import Call

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OTHERS = {"sdpa": RIGHT, "eager": RIGHT}


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def verdicts(problem):
    return {check.provider: check.verdict for check in verify(problem)}


@pytest.mark.parametrize("kind", ["float16", "float32"])
@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_every_variant_of_the_attention_is_right(kind, iterations):
    problem = attention_problem((3, 40, 1, 32), kind, Setting(iterations, (0, 2)), DEVICE)
    variants = {"triton tiled", "triton resident"} | ({"triton in place"} if iterations == 0 else set())
    if DEVICE.type == "cpu":  # a GPU's table has not every variant in every type
        assert set(problem.ours) == variants
    assert verdicts(problem) == dict.fromkeys(problem.ours, RIGHT) | OTHERS


@pytest.mark.parametrize("layout", attention.LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 1, 1, 64), (2, 21, 1, 32)])
def test_every_layout_is_right(layout, shape):
    problem = attention_problem(shape, "float16", Setting(1), DEVICE, layout)
    found = verdicts(problem)
    assert {name for name, verdict in found.items() if verdict != RIGHT} == ({"eager"} if "zero" in layout else set())
    layouts = {"misaligned": lambda q: q.data_ptr() % 16, "images inside tokens": lambda q: q.stride(0) < q.stride(1)}
    qkv = problem.ours["triton tiled"].args[0]
    assert layouts.get(layout, lambda q: True)(qkv)


def test_some_rows_of_a_huge_problem():
    assert verdicts(attention.huge_problem((2, 70, 1, 16), "float16", DEVICE)) == {"automatic": RIGHT, "sdpa": RIGHT}


def test_variants_launch_different_kernels(monkeypatch):
    launched = []
    for name in ("refined", "assign", "resident"):
        method = getattr(Call, name)
        monkeypatch.setattr(Call, name, lambda *a, m=method, n=name: (launched.append(n), m(*a))[1])
    problem = attention_problem((1, 20, 1, 16), "float16", Setting(0), DEVICE)
    found = {}
    for name, call in problem.ours.items():
        launched.clear()
        call()
        found[name] = list(launched)
    expected = {"triton tiled": ["refined", "assign"], "triton in place": ["assign"], "triton resident": ["resident"]}
    assert {name: found[name] for name in expected if name in found} == {
        name: kernels for name, kernels in expected.items() if name in problem.ours
    }


def test_a_head_that_does_not_fit_is_not_resident():
    assert "triton resident" not in attention_problem((1, 300, 1, 16), "float16", Setting(1), DEVICE).ours


@pytest.mark.parametrize("setting", attention.ANY_NORM, ids=str)
def test_rows_of_any_norm_are_right(setting):
    assert verdicts(attention_problem((2, 40, 1, 32), "float16", setting, DEVICE)) == {"triton": RIGHT} | OTHERS


@pytest.mark.parametrize("method", attention.PAIRS.values(), ids=attention.PAIRS)
def test_pairs_are_right(method):
    problem = attention.pairs_problem((2, 37, 1, 32), "float16", method, DEVICE)
    assert verdicts(problem) == {"triton": RIGHT, "sdpa": RIGHT}


def test_a_wrong_kernel_is_told_and_one_that_raises_stops_no_other(monkeypatch):
    assign = Call.assign

    def lessened(call, units, out):
        assign(call, units, out)
        out[:, -1] *= 0.98  # the last token

    def resident(*_):
        raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(Call, "assign", lessened)
    monkeypatch.setattr(Call, "resident", resident)
    found = verdicts(attention_problem((1, 40, 1, 32), "float16", Setting(1), DEVICE))
    assert found == {"triton tiled": WRONG, "triton resident": FAILED} | OTHERS


def test_a_row_that_is_never_written_is_told(monkeypatch):
    assign = Call.assign

    def short(call, units, out):
        call.N -= 1
        assign(call, units, out[:, :-1])

    monkeypatch.setattr(Call, "assign", short)
    checks = verify(attention_problem((1, 40, 1, 32), "float16", Setting(1, (0,)), DEVICE))
    assert "not finite" in checks[0].reason


@pytest.mark.parametrize("kind", ["float16", "float32"])
@pytest.mark.parametrize("kernel", normalization.WAYS)
def test_layer_norm_is_right(kernel, kind):
    problem = normalization.layer_norm_problem((2, 5, 96), kind, kernel, DEVICE)
    assert verdicts(problem) == {"triton": RIGHT, "torch": RIGHT}


@pytest.mark.parametrize("kind", ["float16", "float32"])
@pytest.mark.parametrize("threshold", decoding.THRESHOLDS)
def test_labels_are_right(threshold, kind):
    problem = decoding.labels_problem(9, (4, 3), (9, 11), threshold, kind, DEVICE)
    assert verdicts(problem) == {"triton": RIGHT, "torch in tiles": RIGHT, "eager": RIGHT}
    labels, confidence = problem.ours["triton"]()
    problem.ours["triton"] = lambda: (labels.roll(1, 1), confidence)
    assert "regret" in verify(problem)[0].reason


@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_heatmaps_are_right(kind):
    assert verdicts(decoding.heatmaps_problem(2, (4, 3), (9, 11), kind, DEVICE)) == {"triton": RIGHT, "torch": RIGHT}


def test_a_first_use_is_right_where_the_kernels_are(monkeypatch):
    """In the interpreter none is taken unasked, so that nothing is tried: `cases_triton_first_use.py` does."""
    problem = first_use.first_use_problem("float16", DEVICE)
    assert verdicts(problem) == dict.fromkeys(problem.ours, RIGHT)
    monkeypatch.setattr(first_use, "why_wrong", lambda operation, *_: "it is wrong" * (operation.name == "unit_rows"))
    assert {name for name, verdict in verdicts(problem).items() if verdict != RIGHT} == {"unit_rows"}


def test_the_engine_is_right_on_triton():
    problem = forward.forward_problem("gem-tiny", 1, 32, "float32", DEVICE)
    assert verdicts(problem) == {"engine on triton": RIGHT, "engine on sdpa": RIGHT, "eager": RIGHT}
