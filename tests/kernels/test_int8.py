"""Linear layers in int8 against float64 and exact integers: the native kernel, where this CPU has it, and torch's."""

import pytest
import torch
import torch.nn.functional as F
from gem_fast.kernels import cpu_library
from gem_fast.kernels.cpu_library import why_no_vnni
from gem_fast.kernels.int8 import int8_linear, int8_mlp, quantize_weight

BACKENDS = ["sdpa"] if why_no_vnni() else ["cpu", "sdpa"]
SHAPES = [(1, 1, 1), (1, 7, 33), (13, 100, 70), (50, 192, 576), (49, 64, 32), (97, 130, 31), (5, 3072, 64)]
ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}
backends = pytest.mark.parametrize("backend", BACKENDS)


def layer(inputs, outputs, seed=0):
    generator = torch.Generator().manual_seed(seed + inputs + outputs)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    return weight, torch.randn(outputs, generator=generator)


def tokens(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * torch.linspace(1, 4, shape[-1])


def rounded_tokens(x):
    """x by its definition, row by row: step · whole number, with what decides the rounding in float32."""
    rows = []
    for row in x.float():
        low, high = row.min().clamp_max(0), row.max().clamp_min(0)
        step = (high - low) / 255
        inverse = 1 / step if step > 1e-30 else torch.tensor(0.0)
        zero = (-low * inverse).round()
        byte = ((row * inverse).round() + zero).clamp(0, 255)
        rows.append((step.double() if inverse else 0.0) * (byte - zero).double())
    return torch.stack(rows)


def rounded_weight(weight):
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round().double() * scale.double()


def truth(x, weight, bias):
    return rounded_tokens(x) @ rounded_weight(weight).T + bias.double()


def error(found, exact):
    return float((found.double() - exact).norm() / exact.norm())


@backends
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_same_rounding_in_float64(shape, kind, backend):
    rows, inputs, outputs = shape
    weight, bias = layer(inputs, outputs)
    x = tokens(rows, inputs).to(kind)
    y = int8_linear(x, quantize_weight(weight, bias), dtype=kind, backend=backend)
    assert (y.shape, y.dtype) == ((rows, outputs), kind)
    assert error(y, truth(x, weight, bias)) < (1e-6 if kind == torch.float32 else 4e-3)
    assert error(y, F.linear(x.double(), weight.double(), bias.double())) < 0.03


@backends
@pytest.mark.parametrize("inputs", [4, 130, 516])
def test_sums_are_exact_integers(inputs, backend):
    """With steps and scales of 1; among them the largest sums, which pairs of 16 bits could not hold."""
    generator = torch.Generator().manual_seed(inputs)
    x = torch.randint(-100, 156, (14, inputs), generator=generator)
    x[:, :2] = torch.tensor([-100, 155])
    x[0], x[0, 0], x[1] = 255, 0, -255
    x[1, 0] = 0
    weight = torch.randint(-127, 128, (40, inputs), generator=generator)
    weight[:, 0] = 127
    weight[0], weight[1] = 127, -127
    y = int8_linear(x.float(), quantize_weight(weight.float()), backend=backend)
    assert torch.equal(y.long(), x @ weight.T)
    assert torch.equal(y, y.round())


@backends
def test_the_most_inputs_do_not_overflow(backend):
    inputs = 2**16
    y = int8_linear(torch.full((1, inputs), 255.0), quantize_weight(torch.full((1, inputs), 127.0)), backend=backend)
    assert y.item() == pytest.approx(255 * 127 * inputs, rel=1e-6)
    with pytest.raises(ValueError, match="int8 takes up to 65536 inputs, got 65537"):
        quantize_weight(torch.zeros(1, inputs + 1))


@backends
def test_a_row_depends_on_nothing_else(threads, backend):
    weight, bias = layer(100, 70)
    packed, x = quantize_weight(weight, bias), tokens(53, 100)
    whole = int8_linear(x, packed, backend=backend)
    for first, last in ((0, 1), (1, 14), (14, 53)):
        assert torch.equal(int8_linear(x[first:last].contiguous(), packed, backend=backend), whole[first:last])
    assert torch.equal(int8_linear(x.view(1, 53, 100).expand(2, -1, -1), packed, backend=backend)[1], whole)
    assert torch.equal(int8_linear(x.T.contiguous().T, packed, backend=backend), whole)
    threads(3)
    assert torch.equal(int8_linear(x, packed, backend=backend), whole)


@backends
def test_some_of_the_columns_are_those_of_all(backend):
    weight, bias = layer(64, 150)
    packed, x = quantize_weight(weight, bias), tokens(9, 64)
    whole = int8_linear(x, packed, backend=backend)
    for first, last in ((0, 150), (32, 64), (64, 101), (128, 150), (32, 32)):
        assert torch.equal(int8_linear(x, packed, (first, last), backend=backend), whole[:, first:last])


@backends
def test_smoothing_multiplies_before_rounding(backend):
    weight, bias = layer(50, 40)
    packed, x, smoothing = quantize_weight(weight, bias), tokens(9, 50), torch.linspace(0.1, 3, 50)
    found = int8_linear(x, packed, smoothing=smoothing, backend=backend)
    assert torch.equal(found, int8_linear(x * smoothing, packed, backend=backend))
    assert not torch.equal(found, int8_linear(x, packed, backend=backend))


@backends
def test_extreme_tokens(backend):
    weight, bias = layer(40, 33)
    packed, x = quantize_weight(weight, bias), tokens(6, 40)
    x[0], x[1], x[2], x[3, 7] = 0, 5.0, 1e-38, 1e30
    y = int8_linear(x, packed, backend=backend)
    assert torch.equal(y[0], bias)
    assert error(y[1:2], truth(x[1:2], weight, bias)) < 1e-6
    assert torch.equal(y[2], bias)
    assert error(y[3:4], truth(x[3:4], weight, bias)) < 1e-6
    assert error(y[3], 1e30 * weight[:, 7].double()) < 0.01


@backends
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_what_is_not_finite_stays_so(value, backend):
    weight, bias = layer(40, 33)
    x = tokens(15, 40)
    clean = int8_linear(x, quantize_weight(weight, bias), backend=backend)
    for row, column in ((0, 0), (7, 16), (13, 39)):
        x[row, column] = value
    found, poisoned = int8_linear(x, quantize_weight(weight, bias), backend=backend), [0, 7, 13]
    others = [row for row in range(15) if row not in poisoned]
    assert found[poisoned].isnan().all()
    assert torch.equal(found[others], clean[others])
    weight[3, 5] = value
    found = int8_linear(tokens(15, 40), quantize_weight(weight, bias), backend=backend)
    assert not found[:, 3].isfinite().any()
    assert found[:, :3].isfinite().all()


def mlp(width, inner):
    first, second = (layer(width, inner), layer(inner, width))
    gain, bias = torch.linspace(0.5, 2, width), torch.linspace(-1, 1, width)
    return gain, bias, first, second


@backends
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 5, 7), (13, 33, 100), (60, 64, 256)], ids=str)
def test_mlp_agrees_with_the_same_rounding_in_float64(shape, activation, backend):
    rows, width, inner = shape
    gain, bias, first, second = mlp(width, inner)
    x, branch = tokens(rows, width), tokens(rows, width, seed=2)
    given = (gain, bias, 1e-5, quantize_weight(*first), quantize_weight(*second), activation)
    y = int8_mlp(x, branch, *given, backend=backend)
    total = (x + branch).double()
    normed = F.layer_norm(total, (width,), gain.double(), bias.double(), 1e-5)
    exact = total + truth(ACTIVATIONS[activation](truth(normed, *first)), *second)
    assert error(y, exact) < 1e-3  # where a value lies between two bytes, the last digit of a float decides
    plain = ACTIVATIONS[activation](F.linear(normed.float(), *first))
    assert error(y, total + F.linear(plain, *second)) < 0.02
    alone = int8_mlp(x + branch, None, *given, backend=backend)
    assert torch.equal(alone, y)


@backends
def test_mlps_rows_depend_on_nothing_else_and_stay_not_finite(backend):
    gain, bias, first, second = mlp(48, 100)
    weights = quantize_weight(*first), quantize_weight(*second)
    x = tokens(2, 29, 48)
    whole = int8_mlp(x, None, gain, bias, 1e-5, *weights, "gelu", backend=backend)
    assert torch.equal(int8_mlp(x[1:], None, gain, bias, 1e-5, *weights, "gelu", backend=backend)[0], whole[1])
    x[0, 3, 5], x[1, 4, 0] = torch.nan, torch.inf
    found = int8_mlp(x, None, gain, bias, 1e-5, *weights, "gelu", backend=backend)
    assert found[0, 3].isnan().all()
    assert found[1, 4].isnan().all()
    assert torch.equal(found[0, 4:], whole[0, 4:])


def test_activations_by_the_native_kernel():
    """Of the whole range of floats, by weights that pass a value on: GELU's error is far below a step of 8 bits."""
    if "cpu" not in BACKENDS:
        pytest.skip(why_no_vnni())
    x = torch.cat([torch.linspace(-12, 12, 241), torch.tensor([-1e30, -1e4, 1e4, 1e30])])
    one, both = torch.ones(1, 1), (torch.zeros(1), torch.zeros(1))
    for name, function in ACTIVATIONS.items():
        for value in x:  # LayerNorm of one value is its bias
            bias, second = value.view(1), quantize_weight(one)
            y = int8_mlp(one * 0, None, one[0], both[0], 1e-5, quantize_weight(one, bias), second, name, backend="cpu")
            assert y.item() == pytest.approx(float(function(value.double())), rel=1e-5, abs=2e-6)


def test_what_does_not_fit_is_refused(monkeypatch):
    packed = quantize_weight(*layer(40, 64))
    x = tokens(3, 40)
    for arguments, reason in (
        ((tokens(3, 41), packed), r"x must be \[..., 40\], got \[3, 41\]"),
        ((x, packed, (16, 64)), "columns must be a multiple of 32 and an end up to 64"),
        ((x, packed, (32, 65)), "columns must be a multiple of 32"),
        ((x, packed, None, torch.ones(39)), r"smoothing must be float32 \[40\]"),
        ((x, packed, None, None, torch.float16), "dtype must be float32 or bfloat16"),
    ):
        with pytest.raises(ValueError, match=reason):
            int8_linear(*arguments)
    square = quantize_weight(*layer(40, 40))
    with pytest.raises(ValueError, match="activation must be one of gelu"):
        int8_mlp(x, None, torch.ones(40), torch.ones(40), 1e-5, square, square, "relu")
    with pytest.raises(ValueError, match="must be of one width, 40"):
        int8_mlp(x, None, torch.ones(40), torch.ones(40), 1e-5, packed, packed, "gelu")


def test_without_vnni_the_native_kernel_gives_the_reason(monkeypatch):
    """Its older kin, which adds pairs of products in 16 bits, would saturate."""

    class Library:
        @staticmethod
        def gem_fast_supports(path):
            return path == 2

    monkeypatch.setattr(cpu_library, "_LIBRARY", Library)
    monkeypatch.setattr(cpu_library, "_MISSING", None)
    packed, x = quantize_weight(*layer(40, 64)), tokens(3, 40)
    with pytest.raises(ValueError, match="the backend 'cpu' can't serve: this CPU has no AVX-512 VNNI"):
        int8_linear(x, packed, backend="cpu")
    assert torch.equal(int8_linear(x, packed), int8_linear(x, packed, backend="sdpa"))
