"""Linear layers over weights in panels against float64: the native kernel, where this CPU has it."""

import pytest
import torch
import torch.nn.functional as F
from gem_fast.kernels import linear
from gem_fast.kernels.cpu_library import why_no_panels
from gem_fast.kernels.linear import Panels, in_panels, mlp, panels
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.kernels.test_linear import ACTIVATIONS, error, operands

pytestmark = pytest.mark.skipif(why_no_panels() is not None, reason=f"panels don't serve: {why_no_panels()}")


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch):
    monkeypatch.setattr(panels, "_LEAST", 0)


@pytest.fixture
def poisoned(monkeypatch):
    """The output's memory is full of NaN before the kernel gets it."""
    empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *size, **kw: empty(self, *size, **kw).fill_(torch.nan))


def packed(weight):
    found = in_panels(weight)
    assert isinstance(found, Panels)
    assert torch.equal(found.to_dense(), weight)
    return found


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 1, 32), (3, 5, 64), (14, 256, 32), (15, 257, 96), (197, 1030, 160)], ids=str)
def test_error_is_at_most_twice_plain_torchs(shape, activation, poisoned):
    x, weight, bias = operands(*shape, torch.float32)
    truth = ACTIVATIONS[activation](F.linear(x.double(), weight.double(), bias.double()))
    plain = ACTIVATIONS[activation](F.linear(x, weight, bias))
    found = linear(x, packed(weight), bias, activation)
    assert error(found, truth) <= max(2 * error(plain, truth), torch.finfo(torch.float32).eps)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 300),
    inputs=st.integers(1, 1100),
    groups=st.integers(1, 5),
    threads=st.integers(1, 5),
    bias=st.booleans(),
)
@example(rows=785, inputs=3, groups=1, threads=2, bias=True)
@example(rows=281, inputs=1024, groups=2, threads=3, bias=False)
def test_any_shape_on_any_number_of_threads(rows, inputs, groups, threads, bias):
    x, weight, b = operands(rows, inputs, 32 * groups, torch.float32, bias)
    truth, count = F.linear(x.double(), weight.double(), None if b is None else b.double()), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = linear(x, packed(weight), b)
    finally:
        torch.set_num_threads(count)
    plain = F.linear(x.repeat(16, 1), weight, b)[:rows]  # a single row is no matrix product there
    assert error(found, truth) <= max(2 * error(plain, truth), torch.finfo(torch.float32).eps)
    # The bits of a row depend on nothing else.
    some = [0, rows // 2, rows - 1]
    assert torch.equal(linear(x[some], packed(weight), b), found[some])


def test_nan_and_infinity_stay_in_their_row(poisoned):
    x, weight, bias = operands(30, 300, 64, torch.float32)
    clean = linear(x, packed(weight), bias, "gelu")
    x[3, 7], x[17, 299] = torch.nan, torch.inf
    found = linear(x, packed(weight), bias, "gelu")
    assert found[3].isnan().all()
    assert not found[17].isfinite().any() or found[17].isnan().any()
    found[[3, 17]] = clean[[3, 17]]
    assert torch.equal(found, clean)


def test_gelu_of_numbers_of_any_size():
    few, huge = torch.linspace(-20, 20, 4001), torch.tensor([1e30, -1e30, torch.inf])
    first = torch.eye(32)[:, :1]  # an output that is the input
    found = linear(torch.cat([few, huge])[:, None], packed(first), None, "gelu")[:, 0]
    truth = F.gelu(few.double())
    assert (found[:-3] - truth).abs().max() <= (F.gelu(few) - truth).abs().max()
    assert found[-3:].tolist() == [huge[0], 0, torch.inf]


def test_strided_and_empty_inputs_and_leading_dimensions():
    x, weight, bias = operands(60, 40, 96, torch.float32)
    whole = linear(x, packed(weight), bias)
    assert torch.equal(linear(x[::2], packed(weight), bias), whole[::2])
    assert torch.equal(linear(x.view(3, 4, 5, 40), packed(weight), bias), whole.view(3, 4, 5, 96))
    assert torch.equal(linear(x.T.contiguous().T, packed(weight), bias), whole)
    assert linear(x[:0], packed(weight), bias).shape == (0, 96)


def test_what_the_kernel_cannot_take_is_torchs():
    x, weight, bias = operands(20, 40, 96, torch.float32)
    x.requires_grad_()
    linear(x, packed(weight), bias, "gelu").sum().backward()
    (expected,) = torch.autograd.grad(F.gelu(F.linear(x, weight, bias)).sum(), x)
    torch.testing.assert_close(x.grad, expected)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(x[:, :39], packed(weight), bias)
    with pytest.raises(RuntimeError, match="dtype"):
        linear(x.detach().bfloat16(), packed(weight), bias)
    with pytest.raises(ValueError, match="got 'relu'"):
        linear(x.detach(), packed(weight), bias, "relu")


def test_weights_that_do_not_serve_have_no_panels(monkeypatch):
    weight = torch.ones(64, 8)
    for other in (weight.double(), weight.bfloat16(), weight[:40], weight.to("meta"), weight.clone().requires_grad_()):
        assert in_panels(other) is None
    monkeypatch.setenv("GEM_FAST_BACKEND", "sdpa")
    assert in_panels(weight) is None
    monkeypatch.setenv("GEM_FAST_BACKEND", "cpu")
    with torch.device("meta"):  # another default device is no matter
        assert torch.equal(in_panels(weight).to_dense(), weight)
    monkeypatch.setattr(panels, "_LEAST", weight.numel())
    assert in_panels(weight) is not None
    monkeypatch.setattr(panels, "_LEAST", weight.numel() + 1)
    assert in_panels(weight) is None


def test_it_traces(poisoned):
    x, weight, bias = operands(20, 40, 96, torch.float32)
    torch.library.opcheck(torch.ops.gem_fast.linear_cpu.default, (x, packed(weight).values, bias, "gelu"))


@pytest.mark.parametrize("rows", [1, 40, 261])
@pytest.mark.parametrize("activation", ["gelu", None])
def test_two_layers_in_one_pass_have_the_bits_of_one_after_the_other(rows, activation, poisoned):
    x, weight, bias = operands(rows, 70, 320, torch.float32)
    _, other, other_bias = operands(rows, 320, 96, torch.float32)
    first, second = (packed(weight), bias), (packed(other), other_bias)
    one_by_one = linear(linear(x, *first, activation), *second)
    assert torch.equal(mlp(x, first, second, activation), one_by_one)
    unbiased = linear(linear(x, *first, activation), second[0])
    assert torch.equal(mlp(x.view(1, rows, 70), first, (second[0], None), activation)[0], unbiased)
    torch.library.opcheck(
        torch.ops.gem_fast.mlp_cpu.default, (x, first[0].values, bias, second[0].values, None, activation)
    )
    plain = mlp(x, (weight, bias), second, activation)
    torch.testing.assert_close(plain, one_by_one)


def test_a_gradient_of_the_second_layer_alone_flows():
    rows = 64 * torch.get_num_threads()  # enough for one pass
    x, weight, bias = operands(rows, 32, 64, torch.float32)
    _, other, other_bias = operands(rows, 64, 32, torch.float32)
    mlp(x, (packed(weight), bias), (packed(other), other_bias.requires_grad_()), "gelu").sum().backward()
    assert torch.equal(other_bias.grad, torch.full((32,), float(rows)))


def test_a_strided_bias_is_read_as_it_is():
    x, weight, bias = operands(20, 40, 96, torch.float32)
    strided = torch.stack([bias, bias + 1], 1)[:, 0]
    assert torch.equal(linear(x, packed(weight), strided), linear(x, packed(weight), bias))


def test_one_pass_takes_rows_enough_for_all_threads():
    threads = torch.get_num_threads()
    assert panels.pays_in_one_pass(torch.empty(1, 64 * threads, 8))
    assert not panels.pays_in_one_pass(torch.empty(1, 64 * threads - 1, 8))
