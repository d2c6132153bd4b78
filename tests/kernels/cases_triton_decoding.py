"""Score decoding in Triton against the plain way in float64. `test_triton.py` runs this file."""

import pytest
import torch
from gem_fast.kernels import decode_heatmaps, decode_labels
from gem_fast.kernels.decoding import triton_heatmaps, triton_labels
from gem_fast.kernels.decoding.reference import labels_reference, upsample
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Up, down, along one axis only, in one step from a single patch, and by a factor that is no fraction of small numbers.
SIZES = [
    ((1, 1), (3, 5)),
    ((4, 6), (4, 6)),
    ((5, 3), (6, 70)),
    ((7, 9), (4, 5)),
    ((3, 4), (48, 2)),
    ((14, 9), (33, 61)),
]


def make(P, h, w, dtype=torch.float32, mean=0.2):
    scores = torch.randn(P, h, w, generator=torch.Generator().manual_seed(P * w)) * 0.03 + mean
    return scores.to(DEVICE, dtype)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What `torch.empty` returns is NaN or the lowest integer, so a pixel that is never written shows."""
    empty = torch.empty

    def poison(*a, **k):
        tensor = empty(*a, **k)
        return tensor.fill_(torch.nan if tensor.is_floating_point() else -(2**31))

    monkeypatch.setattr(torch, "empty", poison)


def labels_agree(scores, size, threshold=0.0):
    """Confidences as exact as plain torch's in float32, labels equal but where rounding turns a tie."""
    labels, confidence = decode_labels(scores, size, threshold=threshold, backend="triton")
    truth, sure = labels_reference(scores.double(), size, logit_scale=100.0, threshold=threshold)
    _, plain = labels_reference(scores.float(), size, logit_scale=100.0, threshold=threshold)
    assert labels.dtype == torch.int32
    assert confidence.dtype == torch.float32
    assert ((confidence - sure) / sure).abs().max() <= 2 * ((plain - sure) / sure).abs().max() + 2e-6
    if (labels != truth).any():
        best = upsample(scores.double(), size).topk(min(2, len(scores)), dim=0).values
        tied = (best[0] - best[-1] < 1e-6) | ((sure - threshold).abs() < 1e-5)
        assert tied[labels != truth].all()


@pytest.mark.parametrize(("grid", "size"), SIZES, ids=str)
def test_labels_and_confidences(grid, size):
    labels_agree(make(9, *grid), size)


@pytest.mark.parametrize("P", [1, 2, 4, 5, 64])
def test_any_number_of_classes(P):
    labels_agree(make(P, 5, 3), (6, 67) if P < 5 else (3, 2))


def test_of_classes_that_tie_the_first_is_taken():
    """In groups of their own, and side by side."""
    scores = make(1, 3, 4).expand(11, 3, 4).clone()
    scores[:2] -= 0.1
    labels, confidence = decode_labels(scores, (5, 7), backend="triton")
    assert (labels == 3).all()
    torch.testing.assert_close(confidence, torch.full((5, 7), 1 / 9, device=DEVICE), rtol=1e-4, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_where_a_score_is_not_finite_there_is_no_label(value):
    """At least where plain torch has no confidence, also where no class at all has a finite score."""
    for classes in (1, 5):
        scores = make(5, 4, 5)
        scores[:classes, 2, 3] = value
        labels, confidence = decode_labels(scores, (6, 9), backend="triton")
        _, plain = labels_reference(scores, (6, 9), logit_scale=100.0, threshold=0.0)
        assert plain.isnan().any()
        assert confidence[plain.isnan()].isnan().all()
        assert (labels[confidence.isnan()] == 0).all()


def test_a_pixel_below_the_threshold_is_background():
    scores = make(10, 4, 4)
    labels_agree(scores, (9, 11), threshold=0.4)
    labels, confidence = decode_labels(scores, (9, 11), threshold=0.4, backend="triton")
    assert ((labels == 0) == (confidence < 0.4)).all()
    assert 0 < (labels == 0).sum() < labels.numel()


def test_labels_of_a_thousand_classes():
    labels_agree(make(1001, 2, 1), (1, 2))


def test_labels_of_float16_scores_are_interpolated_in_float32():
    labels_agree(make(10, 5, 5, torch.float16), (9, 20))


def test_labels_of_large_logits_stay_finite():
    """A logit scale of 1,000 over scores of 50: only the running maximum keeps the sum within float32."""
    scores = make(30, 3, 3) * 200
    _, confidence = decode_labels(scores, (5, 5), logit_scale=1000.0, backend="triton")
    assert torch.isfinite(confidence).all()
    assert confidence.min() > 0


def heatmaps_agree(scores, size):
    """As exact as plain torch's in the scores' type; each map spans 0 to 1, and one without contrast is 0."""
    maps = decode_heatmaps(scores, size, backend="triton")
    assert maps.shape == (len(scores), *size)
    assert maps.dtype == scores.dtype
    upsampled = upsample(scores.double(), size)
    flat = upsampled.amax((1, 2)) - upsampled.amin((1, 2)) < 1e-12
    assert (maps[flat] == 0).all()
    truth = decode_heatmaps(scores.double(), size, backend="sdpa")
    plain = decode_heatmaps(scores, size, backend="sdpa")
    worst, allowed = ((each - truth)[~flat].abs().amax((1, 2)) for each in (maps, plain))
    assert (worst <= 2 * allowed + 1e-6).all()
    assert (maps[~flat].amin((1, 2)) == 0).all()
    torch.testing.assert_close(maps[~flat].amax((1, 2)), torch.ones_like(worst).to(maps), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("grid", "size"), [*SIZES, ((5, 40), (9, 600))], ids=str)
def test_heatmaps(grid, size):
    """The last has more corners, and more pixels in a row, than a program takes at a time."""
    heatmaps_agree(make(2, *grid), size)


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(P=st.integers(1, 2), h=st.integers(1, 9), w=st.integers(1, 9), H=st.integers(1, 20), W=st.integers(1, 40))
def test_decoding_of_any_shape(P, h, w, H, W):
    heatmaps_agree(make(P, h, w), (H, W))
    labels_agree(make(P, h, w), (H, W))


def test_heatmaps_of_float16_scores():
    heatmaps_agree(make(3, 5, 6, torch.float16), (21, 30))


def test_heatmaps_take_a_slice_of_the_scores():
    scores = make(4, 10, 12)[1::2, 2:7, ::3]
    heatmaps_agree(scores, (17, 19))
    torch.testing.assert_close(
        decode_heatmaps(scores, (17, 19), backend="triton"),
        decode_heatmaps(scores.clone(), (17, 19), backend="triton"),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("value", [0.0, -0.3])
def test_a_heatmap_without_contrast_is_zero(value):
    maps = decode_heatmaps(torch.full((1, 3, 5), value, device=DEVICE), (9, 33), backend="triton")
    assert maps.abs().max() == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_to_be_seen(value):
    """At least where plain torch shows it, on the patch itself or between patches; the other map is as it was."""
    for size in ((5, 6), (9, 40)):
        scores = make(2, 5, 6)
        scores[0, 2, 3] = value
        maps, plain = (decode_heatmaps(scores, size, backend=name) for name in ("triton", "sdpa"))
        assert plain[0].isnan().any()
        assert maps[0][plain[0].isnan()].isnan().all()
        torch.testing.assert_close(maps[1], plain[1], rtol=0, atol=1e-6)


def test_the_extremes_are_those_of_the_upsampled_map():
    """A single bright patch: halfway between patches no pixel reaches it, and yet the map reaches 1."""
    scores = torch.zeros(1, 5, 5, device=DEVICE)
    scores[0, 2, 2] = 1
    maps = decode_heatmaps(scores, (10, 10), backend="triton")
    assert upsample(scores, (10, 10)).max() < 0.6
    assert maps.max() == 1
    heatmaps_agree(scores, (10, 10))


def test_wrong_scores_are_named():
    with pytest.raises(ValueError, match=r"\[P, h, w\].*\[3, 4\]"):
        triton_labels.triton_decode_labels(torch.zeros(3, 4), (8, 8))
    with pytest.raises(ValueError, match=r"\[P, h, w\].*\[3, 4\]"):
        triton_heatmaps.triton_decode_heatmaps(torch.zeros(3, 4), (8, 8))
    with pytest.raises(ValueError, match=r"'triton' can't serve.*float64"):
        decode_heatmaps(torch.zeros(2, 3, 4, dtype=torch.float64), (8, 8), backend="triton")
    with pytest.raises(ValueError, match=r"'triton' can't serve.*65,535"):
        decode_labels(torch.zeros(2, 3, 4), (70_000, 8), backend="triton")


def test_opcheck():
    scores = make(3, 4, 5)
    torch.library.opcheck(torch.ops.gem_fast.decode_labels_triton.default, (scores, 9, 11, 100.0, 0.5))
    torch.library.opcheck(torch.ops.gem_fast.decode_heatmaps_triton.default, (scores, 9, 11))


def test_compiles_and_exports_whole():
    class Decoder(torch.nn.Module):
        def forward(self, scores):
            labels, confidence = decode_labels(scores, (9, 11), backend="triton")
            return decode_heatmaps(scores * 1, (9, 11), backend="triton") + confidence, labels

    scores, decoder = make(3, 4, 5), Decoder()
    expected = decoder(scores)
    torch.testing.assert_close(torch.compile(decoder, fullgraph=True, backend="aot_eager")(scores), expected)
    prompts = torch.export.Dim("prompts", min=2, max=100)
    exported = torch.export.export(decoder, (scores,), dynamic_shapes={"scores": {0: prompts}})
    more = make(7, 4, 5)
    torch.testing.assert_close(exported.module()(more), decoder(more))
