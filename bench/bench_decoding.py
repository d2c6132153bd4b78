"""Score decoding in tiles against interpolate, softmax and maximum on whole score maps."""

from collections.abc import Callable

import pytest
import torch
from gem_fast.kernels import decode_labels
from gem_fast.kernels.decoding.reference import labels_reference


@pytest.mark.parametrize("classes", [20, 150, 1000])
def test_labels(in_turns: Callable[..., None], classes: int) -> None:
    """From 28×28 patch scores to labels at 448×448."""
    scores = torch.randn(classes, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.02
    size = (448, 448)
    fast, _ = decode_labels(scores, size)
    plain, _ = labels_reference(scores, size, logit_scale=100.0, threshold=0.0)
    assert (fast != plain).float().mean() < 1e-5
    in_turns(
        lambda: decode_labels(scores, size),
        {"plain": lambda: labels_reference(scores, size, logit_scale=100.0, threshold=0.0)},
        rounds=7,
    )
