"""Activations by the native kernel against float64."""

import pytest
import torch
import torch.nn.functional as F
from gem_fast.kernels import cpu_library, linear, quick_gelu, silu_gate
from gem_fast.kernels.activation.cpu import quick_gelu_cpu, silu_gate_cpu
from gem_fast.kernels.cpu_library import paths

PATHS = [path for path in paths() if path != "avx512_bf16"]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
NATIVE = {
    "quick_gelu": lambda x, _, path: quick_gelu_cpu(x, path=path),
    "silu_gate": lambda x, factor, path: silu_gate_cpu(x, factor, path=path),
}
PLAIN = {"quick_gelu": lambda x, _: quick_gelu(x, "sdpa"), "silu_gate": lambda x, factor: silu_gate(x, factor, "sdpa")}
EITHER = pytest.mark.parametrize("name", NATIVE)

pytestmark = pytest.mark.skipif(not PATHS, reason="the native kernel is not here")


def make(shape, dtype, seed=0):
    return (4 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).to(dtype)


def error(result, truth):
    return ((result.double() - truth).norm() / truth.norm()).item()


@EITHER
@DTYPES
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", [(1,), (7, 3), (2, 3, 341), (8192,), (3, 8195)], ids=str)
def test_it_is_as_exact_as_torch_and_in_place(name, path, shape, dtype):
    x, factor = make(shape, dtype), make(shape, dtype, 1)
    truth, plain = PLAIN[name](x.double(), factor.double()), PLAIN[name](x.clone(), factor)
    guarded = torch.full((x.numel() + 64,), 5.0, dtype=dtype)
    inside = guarded[32:-32].view(shape).copy_(x)
    result = NATIVE[name](inside, factor.clone(), path)
    assert result.data_ptr() == inside.data_ptr()
    assert error(result, truth) <= 2 * error(plain, truth) + torch.finfo(torch.float32).eps
    assert (guarded[:32] == 5).all()
    assert (guarded[-32:] == 5).all()


@EITHER
@DTYPES
@pytest.mark.parametrize("path", PATHS)
def test_what_is_large_small_or_no_number(name, path, dtype):
    largest = torch.finfo(dtype).max
    ends = [0.0, -0.0, 30.0, -30.0, -53.0, -89.0, 120.0, -120.0, largest, -largest, torch.inf, -torch.inf, torch.nan]
    x = torch.tensor(3 * ends).to(dtype)  # in vectors and in what is left of one
    found, plain = NATIVE[name](x.clone(), torch.ones_like(x), path), PLAIN[name](x.clone(), torch.ones_like(x))
    torch.testing.assert_close(found, plain, equal_nan=True)


@EITHER
def test_bits_depend_on_no_place_or_number_of_threads(name, threads):
    """As those of torch's own do, which computes what fills no vector in another way."""
    x, factor = make((5, 3333), torch.float32), make((5, 3333), torch.float32, 1)
    threads(1)
    whole = NATIVE[name](x.clone(), factor, None)
    for count in (1, 2, 3):
        threads(count)
        assert torch.equal(whole, NATIVE[name](x.clone(), factor, None))
        for row in range(5):
            assert torch.equal(whole[row, 7:], NATIVE[name](x[row, 7:].clone(), factor[row, 7:].clone(), None))


def test_what_it_serves_and_what_is_torchs():
    x, factor = make((3, 48), torch.float32), make((3, 48), torch.float32, 1)
    fresh = x.clone()
    assert quick_gelu(fresh).data_ptr() == fresh.data_ptr()
    fresh = x.clone()
    assert silu_gate(fresh, factor).data_ptr() == fresh.data_ptr()
    strided = make((48, 3), torch.float32).T
    torch.testing.assert_close(silu_gate(strided, factor), F.silu(strided) * factor)
    torch.testing.assert_close(silu_gate(x.double(), factor.double()), F.silu(x.double()) * factor.double())
    assert quick_gelu(x[:0].clone()).shape == (0, 48)
    for wrong, told in (
        (factor.double(), "x is float64"),
        (factor.bfloat16(), "one shape and type"),
        (factor[:1], "one shape and type"),
        (strided, "contiguous"),
    ):
        with pytest.raises(ValueError, match=f"silu_gate: the backend 'cpu' can't serve: .*{told}"):
            silu_gate(x.clone(), wrong, "cpu")


def test_more_elements_than_an_int_holds(monkeypatch):
    """Their number as the library gets it: plain numbers are C's int there."""
    seen = []

    class Library:
        def gem_fast_activate(self, *arguments):
            seen.append(arguments[2].value)

    monkeypatch.setattr(cpu_library, "_LIBRARY", Library())
    quick_gelu_cpu(torch.zeros(1).expand(2**32 + 3))
    assert seen == [2**32 + 3]


@pytest.mark.parametrize(("name", "wanted"), [("quick_gelu", 0), ("silu_gate", 0), ("silu_gate", 1)])
def test_a_gradient_flows(name, wanted):
    """Of one argument alone."""
    x, factor = given = [make((3, 48), torch.float32, seed) for seed in (0, 1)]
    given[wanted].requires_grad_()
    found = silu_gate(x, factor) if name == "silu_gate" else quick_gelu(x)
    (gradient,) = torch.autograd.grad(found.sum(), given[wanted])
    (expected,) = torch.autograd.grad(PLAIN[name](x, factor).sum(), given[wanted])
    torch.testing.assert_close(gradient, expected)


@EITHER
def test_a_compiler_has_torchs_own(name):
    class Layer(torch.nn.Module):
        def forward(self, x, factor):
            return silu_gate(x, factor) if name == "silu_gate" else quick_gelu(x * 2)

    arguments = make((3, 48), torch.float32), make((3, 48), torch.float32, 1)
    assert "gem_fast" not in torch.export.export(Layer(), arguments).graph_module.code
    torch.library.opcheck(
        torch.ops.gem_fast.activation_cpu.default, (*(each.clone() for each in arguments), 3, PATHS[0])
    )


def test_a_linear_layer_ends_with_it():
    x, weight, bias = make((2, 5, 24), torch.float32), make((40, 24), torch.float32) / 16, make((40,), torch.float32)
    expected = linear(x, weight, bias, "quick_gelu", "sdpa")
    torch.testing.assert_close(linear(x, weight, bias, "quick_gelu", "cpu"), expected)
