"""The yardsticks of lower types: int8 layers against integer arithmetic, and what a comparison allows."""

import pytest
import torch
from gem_fast.export.checking import sample_images
from gem_fast.export.comparison import compare, encoded, label_share
from gem_fast.export.plain import Int8Linear, plain_torch

import gem_fast
from gem_fast.preprocess import to_pixels
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


class TestLabels:
    """Of gem-tiny's features in bfloat16, and of these with an error of another kind."""

    @pytest.fixture(scope="class")
    def tiny(self):
        return gem_fast.load("gem-tiny")

    @pytest.fixture(scope="class")
    def words(self, tiny):
        return tiny.encode_text(["cat", "dog", "car", "tree", "house", "rocket"])

    @pytest.fixture(scope="class")
    def compared(self, tiny, words):
        """What is found of an error `[B, h, w, E]` of patch features, in float32 and in bfloat16."""
        pixels = torch.stack([to_pixels(each, (96, 96), tiny.mean, tiny.std) for each in sample_images()])
        with torch.inference_mode():
            truth, low = (encoded(each, pixels, False) for each in (tiny.vision, plain_torch(tiny.vision, "bf16")))
        where = {"graph": "g.onnx", "output": "patch_features", "size": "96x96", "batch": 8, "input": "samples"}

        def compared(error, lower=True):
            told, plain = truth["patch_features"], low["patch_features"] if lower else None
            return compare(told + error(told), told, plain, label_share(words, (96, 96)), **where)

        return compared

    @pytest.mark.parametrize("lower", [True, False], ids=["bfloat16", "float32"])
    @pytest.mark.parametrize("classes", [(0, 1), (2, 5), (4, 3)])
    def test_no_error_within_the_bound_is_refused_whatever_it_turns(self, compared, words, classes, lower):
        """The worst there is: every patch off by nearly the bound, from one word towards another."""
        towards = torch.nn.functional.normalize(words[classes[1]] - words[classes[0]], dim=0)
        bound = compared(torch.zeros_like, lower).bound
        found = compared(lambda truth: 0.98 * bound * towards.expand_as(truth), lower)
        assert found.relative > 0.97 * found.bound
        assert found.holds
        assert found.labels < 0.999 or not lower

    @pytest.mark.parametrize("patches", [20, 40])
    def test_what_turns_labels_that_no_error_within_the_bound_could_is_refused(self, compared, words, patches):
        """Some of 1,152 patches are another class's by a little: over all, less than the type may lose."""
        bound = compared(torch.zeros_like).bound

        def error(truth):
            best = (truth @ words.T).flatten(0, 2).topk(2)
            apart = words[best.indices[:, 1]] - words[best.indices[:, 0]]
            least = (best.values[:, 0] - best.values[:, 1]) / apart.norm(dim=1) ** 2
            decided = least * apart.norm(dim=1) > bound
            chosen = torch.where(decided, least, torch.inf).argsort()[:patches]
            made = torch.zeros_like(apart)
            made[chosen] = 2.5 * least[chosen, None] * apart[chosen]
            return made.view_as(truth)

        found = compared(error)
        assert found.relative <= found.bound
        assert found.labels < found.least_labels


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
