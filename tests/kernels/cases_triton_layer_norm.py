"""LayerNorm with token norms in Triton against float64. `test_triton.py` runs this file."""

import pytest
import torch
from gem_fast.kernels.layer_norm import layer_norm_and_temperature
from gem_fast.kernels.layer_norm.layer_norm import reference
from gem_fast.kernels.layer_norm.triton_layer_norm import triton_layer_norm, why_not

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make(B, N, C, dtype=torch.float32, offset=3.0):
    generator = torch.Generator().manual_seed(C)
    x = torch.randn(B, N, C, generator=generator, dtype=torch.float64) * 2 + offset
    weight, bias = torch.randn(2, C, generator=generator, dtype=torch.float64)
    return x.to(DEVICE, dtype), weight.to(DEVICE, dtype), bias.to(DEVICE, dtype)


@pytest.mark.parametrize("C", [1, 32, 384, 768, 1000, 1664])
@pytest.mark.parametrize("N", [1, 5])
def test_widths_and_lengths(N, C):
    x, weight, bias = make(2, N, C)
    y, norms = triton_layer_norm(x, weight, bias, 1e-5)
    y_truth, norms_truth = reference(x.double(), weight.double(), bias.double(), 1e-5)
    torch.testing.assert_close(y.double(), y_truth, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(norms.double(), norms_truth, rtol=1e-6, atol=1e-6)


def test_float16_is_as_exact_as_torch():
    x, weight, bias = make(2, 7, 768, torch.float16)
    y, _ = triton_layer_norm(x, weight, bias, 1e-5)
    truth, _ = reference(x.double(), weight.double(), bias.double(), 1e-5)
    plain, _ = reference(x, weight, bias, 1e-5)
    assert y.dtype == torch.float16
    assert (y - truth).norm() <= 1.1 * (plain - truth).norm()


def test_strided_tokens_with_a_large_common_offset():
    """Every second token of a wider buffer; the variance must survive a mean that is 1,000 times the deviation."""
    x, weight, bias = make(2, 10, 96, offset=2000.0)
    x = torch.cat([x, x], dim=-1)[:, ::2, 48:144]
    y, norms = triton_layer_norm(x, weight, bias, 1e-5)
    y_truth, norms_truth = reference(x.double(), weight.double(), bias.double(), 1e-5)
    torch.testing.assert_close(y.double(), y_truth, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norms.double(), norms_truth, rtol=1e-3, atol=0)


def test_the_entry_takes_the_kernel():
    x, weight, bias = make(3, 6, 64)
    assert why_not(x) is None
    y, c = layer_norm_and_temperature(x, weight, bias, 1e-5, head_width=16)
    truth, norms = reference(x.double(), weight.double(), bias.double(), 1e-5)
    torch.testing.assert_close(y.double(), truth, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(c.double(), norms.mean(1) / 4, rtol=1e-6, atol=0)
