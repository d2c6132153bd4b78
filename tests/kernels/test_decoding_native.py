"""The native score decoding on every instruction set that this machine runs, against float64."""

import pytest
import torch
from gem_fast.kernels import cpu_library
from gem_fast.kernels.decoding import cpu
from gem_fast.kernels.decoding.heatmaps import stretched
from gem_fast.kernels.decoding.reference import labels_reference, upsample
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.native_decoding import decode, make_scores

MISSING = cpu_library.why_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"the native kernels can't serve: {MISSING}")
PATHS = [path for path in cpu_library.paths() if path != "avx512_bf16"]
paths = pytest.mark.parametrize("path", PATHS)

# Grids and sizes: single patches and pixels, up and down, a vector of columns and one more, strips without neighbours.
SHAPES = [
    ((1, 1), (1, 1)), ((1, 1), (5, 7)), ((3, 1), (17, 33)), ((1, 4), (70, 16)), ((7, 9), (63, 197)), ((5, 3), (2, 2)),
    ((28, 28), (9, 11)), ((9, 40), (30, 41)), ((40, 5), (41, 1)), ((6, 6), (6, 6)), ((2, 33), (129, 35)),
]  # fmt: skip


def check_labels(scores, size, path, logit_scale=100.0, threshold=0.0):
    """Labels are float64's but for ties within float32's rounding; confidences err at most twice as much as torch's."""
    labels, confidence = decode(scores, size, path, logit_scale, threshold)
    assert (labels.dtype, confidence.dtype) == (torch.int32, torch.float32)
    options = {"logit_scale": logit_scale, "threshold": threshold}
    truth, exact = labels_reference(scores.double(), size, **options)
    _, plain = labels_reference(scores.float(), size, **options)
    error, plain_error = ((x.double() - exact).abs() / exact for x in (confidence, plain))
    assert error.max() <= 2 * plain_error.max() + 2e-7
    assert confidence.max() <= 1
    differs = labels != truth
    if differs.any():
        logits = logit_scale * upsample(scores.double(), size)
        top = logits.topk(min(2, len(scores)), dim=0).values
        rounding = 1e-6 * logits.abs().amax(0).clamp(min=1)
        tied = (top[0] - top[-1] < rounding) & (len(scores) > 1)
        assert (tied | ((exact - threshold).abs() < 1e-5 * threshold))[differs].all()


def check_maps(scores, size, path):
    """Maps err at most twice as much as torch's; one whose pixels are all the same is 0."""
    maps = cpu.cpu_decode_heatmaps(scores, size, path=path)
    wide = upsample(scores.double(), size)
    varied = wide.amax((1, 2)) - wide.amin((1, 2)) > 1e-12  # below, it is float64's own rounding
    exact, plain = stretched(wide)[varied], stretched(upsample(scores, size))[varied]
    assert (maps[~varied] == 0).all()
    if varied.any():
        assert (maps[varied] - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-6
        assert (maps.amin((1, 2)) == 0).all()
        assert (maps[varied].amax((1, 2)) == 1).all()


@paths
@pytest.mark.parametrize(("grid", "size"), SHAPES)
@pytest.mark.parametrize("P", [1, 2, 7, 150])
def test_every_shape(path, P, grid, size):
    scores = make_scores(P, *grid)
    check_labels(scores, size, path)
    check_labels(scores, size, path, threshold=0.3)
    check_maps(scores, size, path)


@settings(max_examples=60, deadline=None)
@given(
    path=st.sampled_from(PATHS or [None]),
    P=st.integers(1, 40),
    grid=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    scale=st.sampled_from([-50.0, 1.0, 100.0]),
)
def test_any_shape(path, P, grid, size, scale):
    scores = make_scores(P, *grid, seed=P)
    check_labels(scores, size, path, scale)
    check_maps(scores, size, path)


@paths
def test_six_thousand_classes(path):
    check_labels(make_scores(6000, 3, 4), (30, 35), path)
    check_labels(make_scores(6000, 3, 4), (30, 35), path, logit_scale=1.0)


@paths
@pytest.mark.parametrize("logit_scale", [0.0, 1e-30, 1e-3, 1.0, 1e4, 1e6, -100.0])
def test_any_logit_scale(path, logit_scale):
    check_labels(make_scores(30, 5, 6), (40, 50), path, logit_scale)


@paths
def test_error_in_ulps(path):
    """Two classes whose logits are exact: what is left are the exponential's error, below 1e-7, and two roundings."""
    gaps = torch.linspace(0, 20, 4000).view(1, 1, -1)
    scores = torch.cat([torch.zeros_like(gaps), -gaps])
    _, confidence = decode(scores, (1, 4000), path, logit_scale=1.0)
    exact = 1 / (1 + torch.exp(-gaps[0].double()))
    assert ((confidence.double() - exact).abs() / exact).max() < 1.8e-7


@paths
def test_confidence_of_a_lone_class_is_exactly_one(path):
    assert (decode(make_scores(1, 5, 6), (40, 50), path)[1] == 1).all()


@paths
def test_ties_go_to_the_first(path):
    scores = make_scores(3, 4, 5)[[2, 0, 1, 0, 2, 1]]
    truth, _ = labels_reference(scores[:3].double(), (33, 47), logit_scale=100.0, threshold=0.0)
    assert torch.equal(decode(scores, (33, 47), path)[0], truth)
    assert (decode(torch.full((9, 2, 2), 0.25), (20, 20), path)[0] == 1).all()


@paths
def test_threshold_itself_is_enough(path):
    """Four equal classes have the confidence 0.25 exactly."""
    scores = torch.full((4, 2, 3), 0.1)
    for threshold, label in ((0.25, 1), (0.2500001, 0), (0.0, 1), (1.5, 0), (-1.0, 1), (float("nan"), 0)):
        labels, confidence = decode(scores, (10, 12), path, threshold=threshold)
        assert (labels == label).all()
        assert (confidence == 0.25).all()


@paths
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_pixels_around_a_score_that_is_not_finite_are_background(path, bad):
    scores, size = make_scores(7, 6, 8), (48, 64)
    clean_labels, clean = decode(scores, size, path)
    scores[3, 2, 5] = bad
    labels, confidence = decode(scores, size, path)
    touched = upsample((torch.arange(48).view(1, 6, 8) == 2 * 8 + 5).double(), size)[0] > 0
    assert confidence[touched].isnan().all()
    assert (labels[touched] == 0).all()
    assert torch.equal(confidence[~touched], clean[~touched])
    assert torch.equal(labels[~touched], clean_labels[~touched])
    maps = cpu.cpu_decode_heatmaps(scores, size, path=path)
    assert maps[3].isnan().all()
    assert maps[[0, 1, 2, 4, 5, 6]].isfinite().all()


@paths
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_scores_are_decoded_in_float32(path, dtype):
    scores = make_scores(20, 5, 6, dtype=dtype)
    for result, wide in zip(decode(scores, (50, 60), path), decode(scores.float(), (50, 60), path), strict=True):
        assert torch.equal(result, wide)


@paths
def test_strided_scores_and_nothing_beyond_them(path):
    """Slices surrounded by NaN in all dimensions, a transposed grid, one map for all classes."""
    wide = torch.full((12, 9, 30), torch.nan)
    inner = wide[1:10:2, 2:7, 3:23]
    inner.copy_(make_scores(5, 5, 20))
    turned = make_scores(5, 20, 5).transpose(1, 2)
    assert turned.stride(-1) != 1
    for scores in (inner, turned, make_scores(1, 5, 20).expand(5, 5, 20)):
        plain = scores.clone(memory_format=torch.contiguous_format)
        for result, expected in zip(decode(scores, (37, 53), path), decode(plain, (37, 53), path), strict=True):
            assert torch.equal(result, expected)
        maps = cpu.cpu_decode_heatmaps(scores, (37, 53), path=path)
        assert torch.equal(maps, cpu.cpu_decode_heatmaps(plain, (37, 53), path=path))


@paths
def test_every_pixel_is_written_and_none_beyond(path, monkeypatch):
    """Outputs lie in the midst of poisoned memory."""
    margins = []

    def surrounded(self, *size, dtype=None):
        shape = torch.Size(size[0] if len(size) == 1 else size)
        memory = torch.full((shape.numel() + 128,), -7, dtype=dtype or self.dtype)
        margins.extend((memory[:64], memory[-64:]))
        return memory[64:-64].view(shape)

    monkeypatch.setattr(torch.Tensor, "new_empty", surrounded)
    for grid, size in SHAPES:
        labels, confidence = decode(make_scores(3, *grid), size, path)
        assert labels.min() > 0
        assert confidence.min() > 0
        assert cpu.cpu_decode_heatmaps(make_scores(3, *grid), size, path=path).min() == 0
    assert all((margin == -7).all() for margin in margins)


def test_paths_agree():
    """Their polynomials are the same, so only the division into vectors differs."""
    results = [decode(make_scores(50, 9, 9), (101, 99), path) for path in PATHS]
    for labels, confidence in results:
        assert torch.equal(labels, results[0][0])
        torch.testing.assert_close(confidence, results[0][1], rtol=3e-7, atol=0)
