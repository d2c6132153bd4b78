"""`GemModel.features`, whatever is around its call."""

import pytest
import torch

import gem_fast


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 72, 88, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("original", [False, True], ids=["gem", "both"])
def test_they_compile_without_a_graph_break(pixels, original):
    model = gem_fast.load("gem-tiny")
    compiled = torch.compile(model.features, backend="aot_eager", fullgraph=True)
    for found, expected in zip(compiled(pixels, original), model.features(pixels, original), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_changes_nothing(pixels, kept, dtype):
    """A model computes in the type that it was loaded in, then and later."""
    model, untouched = (gem_fast.load("gem-tiny", dtype=kept) for _ in range(2))
    expected = untouched.features(pixels)
    with torch.autocast("cpu", dtype):
        assert torch.equal(model.features(pixels), expected)
    assert torch.equal(model.features(pixels), expected)


@pytest.mark.parametrize("original", [False, True], ids=["gem", "both"])
def test_no_images_have_no_features(pixels, original):
    model = gem_fast.load("gem-tiny")
    found = model.features(pixels[:0], original)
    assert (found.patches if original else found).shape == (0, 9, 11, 128)


def test_a_level_of_forward_differentiation_changes_nothing(pixels):
    model = gem_fast.load("gem-tiny")
    expected = model.features(pixels)
    with torch.autograd.forward_ad.dual_level():
        assert torch.equal(model.features(pixels), expected)
