"""LayerNorm with the adaptive temperature: the entry without a GPU."""

import pytest
import torch
from gem_fast.kernels.layer_norm import layer_norm_and_temperature


def test_it_is_layer_norm_and_the_mean_norm_over_the_root_of_the_head_width():
    x, weight, bias = torch.randn(2, 5, 24), torch.rand(24), torch.rand(24)
    y, c = layer_norm_and_temperature(x, weight, bias, 1e-6, head_width=8)
    expected = torch.nn.functional.layer_norm(x, (24,), weight, bias, 1e-6)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(c, expected.norm(dim=-1).mean(1) / 8**0.5)


@pytest.mark.parametrize(
    ("x", "width", "message"),
    [
        (torch.zeros(5, 24), 24, r"\[B, N, C\].*\[5, 24\]"),
        (torch.zeros(2, 5, 24, dtype=torch.int32), 24, "floating"),
        (torch.zeros(2, 5, 24), 8, r"\[24\].*\[8\]"),
    ],
)
def test_wrong_arguments_are_named(x, width, message):
    with pytest.raises(ValueError, match=message):
        layer_norm_and_temperature(x, torch.ones(width), torch.ones(width), 1e-5, head_width=8)
