"""Score decoding in Triton against the tiled torch form in float64. `test_triton.py` runs this file."""

import pytest
import torch
from gem_fast.kernels import decode_labels
from gem_fast.kernels.decoding.triton_labels import triton_decode_labels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make(P, h, w, dtype=torch.float32):
    return (torch.randn(P, h, w, generator=torch.Generator().manual_seed(P)) * 0.03).to(DEVICE, dtype)


@pytest.mark.parametrize("P", [1, 32, 33, 150])
@pytest.mark.parametrize(
    ("grid", "size"), [((1, 1), (3, 5)), ((4, 6), (4, 6)), ((5, 3), (6, 70)), ((7, 9), (4, 5))], ids=str
)
def test_labels_and_confidences(P, grid, size):
    scores = make(P, *grid)
    labels, confidence = triton_decode_labels(scores, size)
    truth, sure = decode_labels(scores.double(), size)
    torch.testing.assert_close(confidence.double(), sure, rtol=1e-4, atol=1e-6)
    assert labels.dtype == torch.int32
    assert (labels == truth).double().mean() > 0.999  # float32 can turn a tie


def test_a_pixel_below_the_threshold_is_background():
    scores = make(20, 4, 4)
    labels, confidence = triton_decode_labels(scores, (9, 11), threshold=0.4)
    assert ((labels == 0) == (confidence < 0.4)).all()
    assert 0 < (labels == 0).sum() < labels.numel()


def test_thousands_of_classes():
    scores = make(6000, 2, 2)
    labels, confidence = triton_decode_labels(scores, (2, 2))
    truth, sure = decode_labels(scores.double(), (2, 2))
    assert (labels == truth).all()
    torch.testing.assert_close(confidence.double(), sure, rtol=1e-3, atol=1e-6)


def test_float16_scores_are_interpolated_in_float32():
    scores = make(40, 5, 5, torch.float16)
    _, confidence = triton_decode_labels(scores, (20, 20))
    torch.testing.assert_close(confidence.double(), decode_labels(scores.double(), (20, 20))[1], rtol=1e-4, atol=1e-6)


def test_wrong_scores_are_named():
    with pytest.raises(ValueError, match=r"\[P, h, w\].*\[3, 4\]"):
        triton_decode_labels(torch.zeros(3, 4), (8, 8))
