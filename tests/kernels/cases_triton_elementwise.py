"""QuickGELU and rows of norm 1 in Triton against float64. `test_triton.py` runs this file."""

import pytest
import torch
from gem_fast.kernels import linear, quick_gelu, unit_rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch, nearest_bfloat16):
    """What `torch.empty` returns is full of NaN, so an element that is never written shows."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))


def make(shape, dtype, scale=4.0):
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(DEVICE, dtype)


def error(result, truth):
    return ((result.double() - truth).norm() / truth.norm()).item()


@DTYPES
@pytest.mark.parametrize("shape", [(1,), (7, 3), (2, 3, 341), (2048,), (4097,)], ids=str)
def test_quick_gelu_is_as_exact_as_torch_and_in_place(shape, dtype):
    x = make(shape, dtype)
    truth, plain = quick_gelu(x.double(), "sdpa"), quick_gelu(x.clone(), "sdpa")
    guarded = torch.full((x.numel() + 64,), 5.0, dtype=dtype, device=DEVICE)
    inside = guarded[32:-32].view(shape).copy_(x)
    result = quick_gelu(inside, "triton")
    assert result.data_ptr() == inside.data_ptr()
    assert error(result, truth) <= 2 * error(plain, truth) + torch.finfo(torch.float32).eps
    assert (guarded[:32] == 5).all()
    assert (guarded[-32:] == 5).all()


@DTYPES
def test_quick_gelu_of_what_is_large_small_or_no_number(dtype):
    largest = torch.finfo(dtype).max
    x = torch.tensor([0.0, -0.0, 90.0, -90.0, largest, -largest, torch.inf, -torch.inf, torch.nan], device=DEVICE)
    x = x.to(dtype)
    torch.testing.assert_close(quick_gelu(x.clone(), "triton"), quick_gelu(x, "sdpa"), equal_nan=True)


def test_a_linear_layer_ends_with_it():
    x, weight, bias = make((2, 5, 24), torch.float32), make((40, 24), torch.float32, 0.2), make((40,), torch.float32)
    expected = linear(x, weight, bias, "quick_gelu", "sdpa")
    torch.testing.assert_close(linear(x, weight, bias, "quick_gelu", "triton"), expected)
    with pytest.raises(ValueError, match=r"quick_gelu: the backend 'triton' can't serve: .*float64"):
        linear(x.double(), weight.double(), None, "quick_gelu", "triton")


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (3, 2, 5), (2, 512), (1, 4, 640)], ids=str)
def test_unit_rows_are_as_exact_as_torch(shape, dtype):
    x = make(shape, dtype)
    truth, plain = unit_rows(x.double(), "sdpa"), unit_rows(x, "sdpa")
    result = unit_rows(x, "triton")
    assert (result.dtype, result.shape) == (torch.float32, shape)
    assert error(result, truth) <= 2 * error(plain, truth) + torch.finfo(torch.float32).eps


def test_rows_of_zero_stay_zero():
    assert (unit_rows(torch.zeros(2, 3, device=DEVICE), "triton") == 0).all()


@pytest.mark.parametrize("operation", [quick_gelu, unit_rows])
def test_what_cannot_be_served_is_refused_with_its_reason(operation):
    x = make((4, 6), torch.float32)
    for wrong, reason in ((x.double(), "float64"), (x.t(), "contiguous"), (x.clone().requires_grad_(), "gradient")):
        with pytest.raises(ValueError, match=f"'triton' can't serve: .*{reason}"):
            operation(wrong, "triton")
        assert operation(wrong).shape == wrong.shape
    assert operation(x[:0], "triton").shape == (0, 6)


def test_opcheck_and_compile():
    x = make((3, 6), torch.float32)
    torch.library.opcheck(torch.ops.gem_fast.quick_gelu_triton.default, (x.clone(),))
    torch.library.opcheck(torch.ops.gem_fast.unit_rows_triton.default, (x,))

    def both(x):
        return unit_rows(quick_gelu(x * 2, "triton"), "triton")

    torch.testing.assert_close(torch.compile(both, fullgraph=True, backend="aot_eager")(x), both(x))
