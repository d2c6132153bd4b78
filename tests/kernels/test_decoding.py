"""Score decoding against the plain way: what the caller gets, and the torch way that serves all devices."""

import pytest
import torch
from gem_fast.kernels import decode_heatmaps, decode_labels
from gem_fast.kernels.decoding import labels as labels_module
from gem_fast.kernels.decoding import triton_limits
from gem_fast.kernels.decoding.heatmaps import stretched
from gem_fast.kernels.decoding.labels import labels_in_tiles
from gem_fast.kernels.decoding.reference import labels_reference, upsample
from hypothesis import given, settings
from hypothesis import strategies as st


def random_scores(classes, h, w, seed=0):
    return torch.randn(classes, h, w, generator=torch.Generator().manual_seed(seed)) * 0.02 + 0.2


LABELS = {"any": decode_labels, "torch": labels_in_tiles}
HEATMAPS = {"any": decode_heatmaps, "torch": lambda scores, size: stretched(upsample(scores, size))}


def assert_same(decode, scores, size, logit_scale=100.0, threshold=0.0):
    """Labels equal the plain way's, except where its two best classes or the threshold tie within rounding."""
    labels, confidence = decode(scores, size, logit_scale=logit_scale, threshold=threshold)
    plain, plain_confidence = labels_reference(scores.double(), size, logit_scale=logit_scale, threshold=threshold)
    torch.testing.assert_close(confidence.double(), plain_confidence, rtol=2e-4, atol=1e-6)
    differs = labels != plain
    if differs.any():
        top = upsample(scores.double(), size).topk(min(2, len(scores)), dim=0).values
        tied = (top[0] - top[-1] < 1e-6) | ((plain_confidence - threshold).abs() < 1e-4)
        assert tied[differs].all()


@pytest.mark.parametrize(
    ("classes", "grid", "size"),
    [
        (1, (1, 1), (5, 7)),
        (3, (2, 5), (33, 31)),
        (20, (28, 28), (448, 448)),
        (150, (7, 9), (63, 197)),
        (1000, (4, 4), (40, 41)),
        (2, (9, 9), (5, 4)),
    ],
)
@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("way", LABELS)
def test_equals_the_plain_way(way, classes, grid, size, threshold):
    assert_same(LABELS[way], random_scores(classes, *grid), size, threshold=threshold)


@settings(max_examples=40, deadline=None)
@given(
    way=st.sampled_from(sorted(LABELS)),
    classes=st.integers(1, 40),
    h=st.integers(1, 6),
    w=st.integers(1, 6),
    H=st.integers(1, 50),
    W=st.integers(1, 50),
)
def test_any_shape_equals_the_plain_way(way, classes, h, w, H, W):
    assert_same(LABELS[way], random_scores(classes, h, w, seed=classes * 31 + H), (H, W))


@pytest.mark.parametrize("elements", [1, 100, 5000], ids="tile{}".format)
def test_tiles_of_any_size_give_the_same(monkeypatch, elements):
    scores, size = random_scores(17, 5, 6), (50, 61)
    expected = labels_in_tiles(scores, size, logit_scale=100.0, threshold=0.0)
    monkeypatch.setattr(labels_module, "_TILE_ELEMENTS", elements)
    results = labels_in_tiles(scores, size, logit_scale=100.0, threshold=0.0)
    for result, whole in zip(results, expected, strict=True):
        torch.testing.assert_close(result, whole)


@pytest.mark.parametrize("way", LABELS)
def test_background_is_zero_and_classes_count_from_one(way):
    scores = torch.tensor([0.3, 0.1, 0.1]).view(3, 1, 1)
    labels, confidence = LABELS[way](scores, (2, 2), logit_scale=100.0, threshold=0.5)
    assert labels.tolist() == [[1, 1], [1, 1]]
    assert confidence.min() > 0.99
    assert LABELS[way](torch.zeros(3, 1, 1), (2, 2), logit_scale=100.0, threshold=0.5)[0].sum() == 0


@pytest.mark.parametrize("way", LABELS)
@pytest.mark.parametrize(("threshold", "label"), [(0.25, 1), (0.2500001, 0), (0.0, 1), (1.5, 0)])
def test_threshold_itself_is_enough(way, threshold, label):
    """Four equal classes have a confidence of exactly a quarter."""
    labels, confidence = LABELS[way](torch.full((4, 2, 3), 0.2), (9, 7), logit_scale=100.0, threshold=threshold)
    assert (confidence == 0.25).all()
    assert (labels == label).all()


def test_memory_of_a_thousand_classes_stays_under_100_mb():
    """Every tensor that decoding allocates, counted by the allocator's own profile."""
    scores = random_scores(1000, 28, 28)
    with torch.profiler.profile(profile_memory=True) as profile:
        labels_in_tiles(scores, (448, 448), logit_scale=100.0, threshold=0.0)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert 3e6 < peak < 100e6  # 1,000 classes at 448×448 would be 803 MB


@pytest.mark.parametrize("size", [(448, 448), (97, 211), (3, 3)])
@pytest.mark.parametrize("way", HEATMAPS)
def test_heatmaps_are_stretched_for_each_prompt(way, size):
    scores = random_scores(3, 7, 9)
    maps = HEATMAPS[way](scores, size)
    plain = upsample(scores, size).flatten(1)
    low, high = plain.amin(1, keepdim=True), plain.amax(1, keepdim=True)
    torch.testing.assert_close(maps.flatten(1), (plain - low) / (high - low))
    assert maps.amin() == 0
    assert maps.amax() == 1


@pytest.mark.parametrize("way", HEATMAPS)
def test_heatmap_of_little_contrast_is_stretched_like_any(way):
    scores = torch.arange(18.0).view(2, 3, 3) * 2.0**-60
    maps = HEATMAPS[way](scores, (6, 6))
    assert torch.equal(maps.amin((1, 2)), torch.zeros(2))
    torch.testing.assert_close(maps.amax((1, 2)), torch.ones(2))


@pytest.mark.parametrize("way", HEATMAPS)
def test_heatmap_without_contrast_is_zero(way):
    assert HEATMAPS[way](torch.full((2, 3, 3), 0.25), (6, 6)).abs().max() == 0


def test_a_gradient_flows():
    """Of maps and of confidences, by differences."""
    scores = random_scores(3, 4, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: decode_heatmaps(scores, (7, 9)), scores)
    assert torch.autograd.gradcheck(lambda scores: decode_labels(scores, (7, 9))[1], scores)
    narrow = scores.detach().float().requires_grad_()  # which the native kernels would take
    for each in (narrow, scores):
        decode_heatmaps(each, (7, 9)).square().sum().backward()
    torch.testing.assert_close(narrow.grad.double(), scores.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 4), (1, 2, 4, 4), (2, 0, 4), (2, 4, 0)])
def test_wrong_shape_of_heatmaps_is_named(shape):
    with pytest.raises(ValueError, match=r"scores must have the shape \[P, h, w\]"):
        decode_heatmaps(torch.zeros(shape), (4, 4))


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 4), (2, 0, 4)])
def test_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"\[P, h, w\]"):
        decode_labels(torch.zeros(shape), (4, 4))


@pytest.mark.parametrize(
    ("prompts", "size", "fits"),
    [(1, (65535, 2**20), True), (1, (65536, 4), False), (2**17, (2**14 - 1, 2**20), True), (2**17, (2**14, 4), False)],
    ids=str,
)
def test_what_fits_a_launch_grid(prompts, size, fits):
    reason = triton_limits.why_not(torch.empty(prompts, 1, 1, device="meta"), size)
    assert (reason != "more than 65,535 output rows, or 2³¹ of all prompts, do not fit a launch grid") == fits
