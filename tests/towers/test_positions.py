"""Position embeddings for other grids than that of training."""

import pytest
import torch

from gem_fast.options import GemOptions
from gem_fast.towers.vit import GemVisionTransformer, VisionConfig


def tower(grid, width=6):
    model = GemVisionTransformer(VisionConfig(width, 1, 1, width, 8, grid, 4), GemOptions(gem_blocks=1))
    model.position_embedding.copy_(torch.randn(model.position_embedding.shape))
    return model


def weights(inputs, outputs):
    """Antialiased bicubic resampling of one axis [outputs, inputs] float64, by its definition (a = -0.5)."""
    scale = max(1.0, inputs / outputs)
    centre = (torch.arange(outputs, dtype=torch.float64) + 0.5) * inputs / outputs
    x = ((torch.arange(inputs) + 0.5 - centre[:, None]) / scale).abs()
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    kernel = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return kernel / kernel.sum(1, keepdim=True)


@pytest.mark.parametrize("trained", [(14, 14), (2, 7), (1, 9), (9, 1)], ids=str)
@pytest.mark.parametrize("grid", [(5, 1), (28, 1), (1, 5), (1, 1), (7, 9), (28, 40)], ids=str)
def test_every_shape_is_resampled_axis_by_axis(trained, grid):
    """One column wide as well, where `torch.nn.functional.interpolate` alone goes wrong."""
    model = tower(trained)
    image = model.position_embedding[1:].double().unflatten(0, trained)
    expected = torch.einsum("hi,ijc,wj->hwc", weights(trained[0], grid[0]), image, weights(trained[1], grid[1]))
    result = model.positions(*grid)
    torch.testing.assert_close(result[1:].double(), expected.flatten(0, 1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result[:1], model.position_embedding[:1])


def test_the_trained_grid_is_taken_as_it_is():
    model = tower((3, 4))
    assert model.positions(3, 4) is model.position_embedding
