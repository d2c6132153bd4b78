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


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What `torch.empty` returns is full of NaN, so an element that is never written shows."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))


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


def test_float32_is_as_exact_as_torch():
    x, weight, bias = make(3, 20, 768)
    y, c = layer_norm_and_temperature(x, weight, bias, 1e-5, 64, backend="triton")
    plain, plain_c = layer_norm_and_temperature(x, weight, bias, 1e-5, 64, backend="sdpa")
    truth, exact_c = layer_norm_and_temperature(x.double(), weight.double(), bias.double(), 1e-5, 64)
    assert (y - truth).norm() <= 2 * (plain - truth).norm()
    assert (c - exact_c).abs().max() <= 2 * (plain_c - exact_c).abs().max() + 1e-7 * exact_c.max()


def test_the_entry_takes_the_kernel_by_name():
    x, weight, bias = make(3, 6, 64)
    assert why_not(x, weight, bias) is None
    y, c = layer_norm_and_temperature(x, weight, bias, 1e-5, head_width=16, backend="triton")
    truth, norms = reference(x.double(), weight.double(), bias.double(), 1e-5)
    torch.testing.assert_close(y.double(), truth, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(c.double(), norms.mean(1) / 4, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.zeros(1, 4, 8, dtype=torch.float64), "float64"),
        (torch.zeros(1, 8, 4).transpose(1, 2), "contiguous"),
        (torch.zeros(1, 4, 8193), "8192"),
        (torch.zeros(1, 4, 8, requires_grad=True), "gradient"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_reason(x, reason):
    x = x.to(DEVICE)
    weight, bias = torch.ones(2, x.shape[-1], dtype=x.dtype, device=DEVICE)
    with pytest.raises(ValueError, match=reason):
        layer_norm_and_temperature(x, weight, bias, 1e-5, 4, backend="triton")
    assert layer_norm_and_temperature(x, weight, bias, 1e-5, 4)[1].shape == (1,)


def test_opcheck_compile_and_export():
    class Norm(torch.nn.Module):
        def forward(self, x, weight, bias):
            return layer_norm_and_temperature(x, weight, bias, 1e-5, 16, backend="triton")

    arguments = make(3, 6, 64)
    torch.library.opcheck(torch.ops.gem_fast.layer_norm_and_norms_triton.default, (*arguments, 1e-5))
    norm = Norm()
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), norm(*arguments))
    shapes = {"x": {1: torch.export.Dim("tokens", min=2, max=500)}, "weight": None, "bias": None}
    exported = torch.export.export(norm, arguments, dynamic_shapes=shapes)
    longer = make(3, 11, 64)[0], *arguments[1:]
    torch.testing.assert_close(exported.module()(*longer), norm(*longer))
