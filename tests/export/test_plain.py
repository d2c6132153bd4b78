"""The yardsticks of lower types: int8 layers against integer arithmetic, and what a comparison allows."""

import pytest
import torch
from gem_fast.export.plain import Int8Linear, plain_torch

import gem_fast
from gem_fast.runtime.agreement import Comparison
from gem_fast.towers.vit import Linear


@pytest.mark.parametrize("shift", [-3.0, 0.0, 5.0])
def test_an_int8_layer_computes_what_integers_would(shift):
    """In float64 with rounded integers, by the definition of DynamicQuantizeLinear and MatMulInteger."""
    torch.manual_seed(0)
    linear = Linear(40, 7)
    x = torch.randn(2, 5, 40) + shift
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    step = (high - low) / 255
    zero = round(-low / step)
    integers = (x.double() / step).round().add(zero).clamp(0, 255) - zero
    scale = linear.weight.detach().double().abs().amax(1) / 127
    weight = (linear.weight.detach().double() / scale[:, None]).round()
    expected = integers @ weight.T * step * scale + linear.bias.detach().double()
    with torch.no_grad():
        result = Int8Linear.of(linear)(x)
        exact = linear(x)
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=1e-5)
    assert 1e-3 < (result - exact).abs().max() < 0.1


@pytest.mark.parametrize("kind", ["fp16", "bf16", "int8"])
def test_the_model_itself_is_left_alone(kind):
    model = gem_fast.load("gem-tiny", gem_blocks=1)
    before = {name: value.clone() for name, value in model.vision.state_dict().items()}
    plain = plain_torch(model.vision, kind)
    assert (plain.backend, model.vision.backend) == ("sdpa", None)
    after = model.vision.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_what_a_comparison_allows():
    where = {"graph": "g.onnx", "output": "o", "size": None, "batch": 1, "input": "noise", "absolute": 1.0}
    assert Comparison(**where, relative=2e-6).holds
    assert not Comparison(**where, relative=2.1e-6).holds
    assert not Comparison(**where, relative=float("nan")).holds
    assert not Comparison(**where, relative=0.0, labels=0.9998).holds
    plain = Comparison(**where, relative=1e-3, labels=0.99)
    loose = Comparison(**where, relative=1.9e-3, labels=0.98).loosened(plain)
    assert (loose.bound, loose.holds) == (2e-3, True)
    assert loose.least_labels == pytest.approx(1 - 2 * 0.01 - 0.002)
    assert not Comparison(**where, relative=2.1e-3, labels=0.98).loosened(plain).holds
    assert not Comparison(**where, relative=1e-3, labels=0.97).loosened(plain).holds
