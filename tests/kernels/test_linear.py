"""The linear layer with its activation: oneDNN's call and the plain one against float64."""

import platform
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from gem_fast.kernels import linear, prepacked
from gem_fast.kernels.linear import activate, linear_of_each
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

ACTIVATIONS = {
    None: lambda x: x,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}
SHAPES = [(1, 64, 64), (3, 7, 5), (197, 160, 640), (785, 96, 288), (50, 768, 3072), (1, 2048, 4096)]  # rows, in, out


def operands(rows, inputs, outputs, dtype, bias=True):
    generator = torch.Generator().manual_seed(rows + inputs + outputs)
    x = torch.randn(rows, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    b = torch.randn(outputs, generator=generator) if bias else None
    return tuple(t if t is None else t.to(dtype) for t in (x, weight, b))


def error(result, truth):
    return ((result.double() - truth).norm() / truth.norm()).item()


def check(rows, inputs, outputs, dtype, activation, bias, few=False):
    """At most twice the error of plain torch in the same type, or a rounding of the type.

    Of a few outputs either way of adding up may be the luckier one, and sums may be far smaller than what is added:
    then also two roundings of float32, and one of all that is added.
    """
    x, weight, b = operands(rows, inputs, outputs, dtype, bias)
    truth = ACTIVATIONS[activation](F.linear(x.double(), weight.double(), None if b is None else b.double()))
    plain = ACTIVATIONS[activation](F.linear(x, weight, b))
    result = linear(x, weight, b, activation)
    assert (result.dtype, result.shape) == (dtype, (rows, outputs))
    least = torch.finfo(dtype).eps
    if few:
        added = F.linear(x.double().abs(), weight.double().abs(), None if b is None else b.double().abs())
        least = max(least, torch.finfo(torch.float32).eps * (2 + (added.norm() / truth.norm()).item()))
    assert error(result, truth) <= max(2 * error(plain, truth), least)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_error_is_at_most_twice_plain_torchs(shape, activation, dtype):
    check(*shape, dtype, activation, bias=True)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 400),
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 500),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    activation=st.sampled_from(list(ACTIVATIONS)),
    bias=st.booleans(),
)
@example(rows=1, inputs=244, outputs=1, dtype=torch.float32, activation="gelu", bias=True)  # of which little is left
def test_any_shape(rows, inputs, outputs, dtype, activation, bias):
    check(rows, inputs, outputs, dtype, activation, bias, few=True)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not torch.backends.mkldnn.is_available(), reason="oneDNN serves on x86-64"
)
class TestWhatOnednnTakes:
    prepacks = pytest.mark.skipif(torch.__version__ < (2, 14), reason="this torch traces no such weight")

    @pytest.fixture
    def plain(self):
        with mock.patch.object(F, "linear", side_effect=F.linear) as plain:
            yield plain

    def test_products(self, plain):
        linear(*operands(197, 160, 640, torch.float32), "gelu")
        assert not plain.called

    def test_small_ones(self, plain):
        linear(*operands(1, 7, 5, torch.float32))
        assert not plain.called

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("packed", [False, pytest.param(True, marks=prepacks)])
    @pytest.mark.parametrize(
        ("rows", "inputs", "outputs"),
        [(1, 160, 640), (1, 3072, 768), (2, 160, 640), (6, 160, 640), (50, 160, 640), (31, 768, 640), (63, 256, 5)],
    )
    def test_bits_of_a_row_are_those_in_any_batch_by_any_threads(self, threads, rows, inputs, outputs, packed, dtype):
        x, weight, bias = operands(8 * rows, inputs, outputs, dtype)
        weight, images = prepacked(weight) if packed else weight, x.view(8, rows, inputs)
        threads(1)
        alone = torch.cat([linear(image[None], weight, bias, "gelu") for image in images])
        for count in (1, 2):
            threads(count)
            assert torch.equal(alone, torch.cat([linear(image[None], weight, bias, "gelu") for image in images]))
            assert torch.equal(alone, linear(images, weight, bias, "gelu"))
            if torch.__version__ >= (2, 14):  # before it oneDNN takes other sums for more rows
                assert torch.equal(alone.flatten(0, 1), linear(x, weight, bias, "gelu"))

    def test_each_images_own_weight(self, plain):
        x, weight, _ = operands(7, 96, 3 * 64, torch.float32)
        found = linear_of_each(x, weight.view(3, 64, 96))
        assert torch.equal(found, torch.stack([linear(x, each) for each in weight.split(64)]))
        assert torch.equal(linear_of_each(x.repeat(3, 1, 1), weight.view(3, 64, 96)), found)
        assert not plain.called

    def test_strided_inputs_are_torchs_and_right(self, plain):
        x, weight, bias = operands(394, 160, 640, torch.float32)
        torch.testing.assert_close(linear(x[::2], weight, bias), linear(x[::2].contiguous(), weight, bias))
        assert plain.call_count == 1

    def test_a_gradient_flows(self, plain):
        x, weight, bias = operands(197, 160, 640, torch.float32)
        weight.requires_grad_()
        linear(x, weight, bias, "gelu").sum().backward()
        (expected,) = torch.autograd.grad(F.gelu(F.linear(x, weight, bias)).sum(), weight)
        torch.testing.assert_close(weight.grad, expected)

    def test_switching_it_off(self, plain):
        with torch.backends.mkldnn.flags(enabled=False):
            linear(*operands(197, 160, 640, torch.float32))
        assert plain.called

    def test_what_is_left_to_torch_is_taken_image_by_image(self, plain):
        """Whose bits may depend on the number of rows."""
        x, weight, bias = operands(3 * 50, 96, 288, torch.float32)
        with torch.backends.mkldnn.flags(enabled=False):
            found = linear(x.view(3, 50, 96), weight, bias, "gelu")
            assert [tuple(call.args[0].shape) for call in plain.call_args_list] == [(50, 96)] * 3
            assert torch.equal(found[1], linear(x[50:100], weight, bias, "gelu"))

    @prepacks
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("shape", [(2, 7, 5), (7, 160, 640), (197, 160, 640), (50, 768, 3072)], ids=str)
    def test_a_prepacked_weight_gives_the_same_bits(self, plain, shape, activation, dtype):
        x, weight, bias = operands(*shape, dtype)
        packed = prepacked(weight)
        assert packed.is_mkldnn
        assert torch.equal(packed.to_dense(), weight)
        found = linear(x, packed, bias, activation)
        assert not plain.called
        fused, variant = {"gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh")}.get(activation, ("none", ""))
        expected = torch.ops.mkldnn._linear_pointwise(x, weight, bias, fused, [], variant)
        assert torch.equal(found, activate(expected, activation) if fused == "none" else expected)

    @prepacks
    def test_a_prepacked_weight_takes_strided_and_empty_inputs(self, plain):
        x, weight, bias = operands(394, 160, 640, torch.float32)
        assert torch.equal(linear(x[::2], prepacked(weight), bias), linear(x[::2].contiguous(), weight, bias))
        assert linear(x[:0], prepacked(weight), bias).shape == (0, 640)
        assert not plain.called

    @prepacks
    def test_a_gradient_flows_past_a_prepacked_weight(self):
        x, weight, bias = operands(197, 160, 640, torch.float32)
        x.requires_grad_()
        linear(x, prepacked(weight), bias, "gelu").sum().backward()
        (expected,) = torch.autograd.grad(F.gelu(F.linear(x, weight, bias)).sum(), x)
        torch.testing.assert_close(x.grad, expected)

    @prepacks
    def test_a_prepacked_weight_with_onednn_switched_off(self, plain):
        x, weight, bias = operands(197, 160, 640, torch.float32)
        packed = prepacked(weight)
        with torch.backends.mkldnn.flags(enabled=False):
            assert torch.equal(linear(x, packed, bias), F.linear(x, weight, bias))
            assert prepacked(weight) is weight

    @prepacks
    def test_a_prepacked_weight_of_another_type_is_refused_as_a_plain_one_is(self):
        x, weight, bias = operands(197, 160, 640, torch.float32)
        with pytest.raises(RuntimeError, match="dtype"):
            linear(x.bfloat16(), prepacked(weight), bias)

    @pytest.mark.parametrize("packed", [False, pytest.param(True, marks=prepacks)])
    def test_what_does_not_fit_is_told_by_torch(self, packed):
        x, weight, bias = operands(50, 96, 288, torch.float32)
        weight = prepacked(weight) if packed else weight
        for rows in (50, 1):
            with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
                linear(x[:rows, :5].contiguous(), weight)
        with pytest.raises(RuntimeError, match="expand"):
            linear(x, weight, bias[:7])

    def test_nothing_to_add_up_is_the_bias(self):
        x, weight, bias = torch.ones(3, 0), torch.ones(5, 0), torch.arange(5.0)
        assert torch.equal(linear(x, weight, bias), bias.expand(3, 5))
        assert linear(torch.ones(3, 4), torch.ones(0, 4)).shape == (3, 0)

    def test_exported_programs_hold_torchs_operators_alone(self):
        class Layer(torch.nn.Module):
            def forward(self, x, weight, bias):
                return linear(x, weight, bias, "gelu")

        arguments = operands(197, 160, 640, torch.float32)
        program = torch.export.export(Layer(), arguments)
        names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
        assert names == {"aten.linear.default", "aten.gelu.default"}
        torch.testing.assert_close(program.module()(*arguments), linear(*arguments, "gelu"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_weights_that_onednn_does_not_serve_stay_plain(dtype):
    weight = torch.ones(8, 8, dtype=dtype)
    assert prepacked(weight) is weight
    assert prepacked(trained := torch.ones(8, 8, requires_grad=True)) is trained


def test_leading_dimensions_stay():
    x, weight, bias = operands(6 * 50, 96, 288, torch.float32)
    torch.testing.assert_close(linear(x.view(2, 3, 50, 96), weight, bias).flatten(0, 2), linear(x, weight, bias))


@pytest.mark.parametrize("rows", [1, 500])
def test_an_unknown_activation_is_named(rows):
    with pytest.raises(ValueError, match=r"activation must be .* got 'relu'"):
        linear(*operands(rows, 160, 640, torch.float32), "relu")


def test_a_level_of_forward_differentiation_takes_weights_in_onednns_layout():
    x, weight = torch.randn(2, 5, 24), torch.randn(40, 24)
    with forward_ad.dual_level():
        torch.testing.assert_close(linear(x, prepacked(weight)), x @ weight.T)
        y, tangent = forward_ad.unpack_dual(linear(forward_ad.make_dual(x, 2 * x), prepacked(weight)))
    torch.testing.assert_close(tangent, 2 * y)
