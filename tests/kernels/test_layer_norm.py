"""LayerNorm with what stands around it: the entry, and the native kernel on every instruction set that runs here."""

import pytest
import torch
from gem_fast.kernels.cpu_library import paths, why_missing
from gem_fast.kernels.layer_norm import add_layer_norm, layer_norm_and_temperature
from gem_fast.kernels.layer_norm.cpu import cpu
from gem_fast.kernels.layer_norm.layer_norm import OPERATION

from tests.kernels.layer_norm_tensors import errors, make, summed

native = pytest.mark.skipif(why_missing() is not None, reason=f"cpu can't serve: {why_missing()}")
TYPES = [torch.float32, torch.bfloat16, torch.float16]
each_path = pytest.mark.parametrize("path", [path for path in paths() if path != "avx512_bf16"])


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


@pytest.fixture
def poisoned(monkeypatch):
    """What `torch.empty` returns is full of NaN, so an element that is never written shows."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))


@native
@each_path
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("B", "N", "C", "front", "everywhere"),
    [(2, 5, 768, 0, False), (3, 1, 1, 0, False), (1, 4, 1000, 1, True), (2, 1, 33, 2, True), (2, 3, 95, 0, True)],
)
def test_sums_are_as_exact_as_torch(B, N, C, front, everywhere, dtype, path, poisoned):
    x, branch, weight, bias, aside, ahead = summed(B, N, C, dtype, front, everywhere)
    ours = cpu(x, weight, bias, 1e-5, branch, 16, aside, ahead, path=path)
    plain = add_layer_norm(x, branch, weight, bias, 1e-5, 16, aside, ahead, backend="sdpa")
    wide = [None if each is None else each.double() for each in (x, branch, weight, bias, *aside, ahead)]
    truth = add_layer_norm(*wide[:4], 1e-5, 16, tuple(wide[4:6]), wide[6], backend="sdpa")
    assert [(each.dtype, each.shape) for each in ours] == [(each.dtype, each.shape) for each in plain]
    torch.testing.assert_close(ours.tokens, plain.tokens, rtol=0, atol=0)
    torch.testing.assert_close(ours.aside, plain.aside, rtol=0, atol=0)
    for own, allowed in zip(errors(ours, truth), errors(plain, truth), strict=True):
        assert own <= 2 * allowed + 1e-7


@native
@each_path
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_large_common_offset_and_what_lies_beside_the_tokens(dtype, path, poisoned):
    """The deviation must survive a mean that is 100 times as large, and what lies between tokens is not read."""
    x, weight, bias = make(2, 10, 90, dtype, offset=200.0)
    wide = torch.full((2, 20, 200), torch.nan, dtype=dtype)
    wide[:, ::2, 50:140] = x
    found = cpu(wide[:, ::2, 50:140], weight, bias, 1e-5, path=path)
    truth = torch.nn.functional.layer_norm(x.double(), (90,), weight.double(), bias.double())
    plain = torch.nn.functional.layer_norm(x, (90,), weight, bias)
    assert (found.y - truth).norm() <= 2 * (plain - truth).norm()
    assert (found.scale, found.aside) == (None, None)
    assert torch.equal(found.y, cpu(x.transpose(1, 2).contiguous().transpose(1, 2), weight, bias, 1e-5, path=path).y)


@native
@each_path
def test_nan_and_infinity_stay_in_their_token(path, poisoned):
    x, branch, weight, bias, _, _ = summed(2, 6, 40, torch.bfloat16)
    clean = cpu(x, weight, bias, 1e-5, branch, 8, path=path)
    x[0, 3, 5], branch[1, 4, 39] = torch.nan, torch.inf
    found = cpu(x, weight, bias, 1e-5, branch, 8, path=path)
    for b, n in ((0, 3), (1, 4)):
        assert found.y[b, n].isnan().all()
        found.y[b, n], found.tokens[b, n] = clean.y[b, n], clean.tokens[b, n]
    assert torch.equal(found.y, clean.y)
    assert torch.equal(found.tokens, clean.tokens)
    assert found.scale.isnan().all()


@native
def test_a_token_has_the_same_bits_in_any_batch_and_on_any_number_of_threads(threads):
    x, branch, weight, bias, aside, _ = summed(3, 97, 700, torch.float32)
    whole = add_layer_norm(x, branch, weight, bias, 1e-5, 64, aside, backend="cpu")
    for count in (1, 3):
        threads(count)
        pair = aside[0][1:2], aside[1][1:2]
        one = add_layer_norm(x[1:2], branch[1:2], weight, bias, 1e-5, 64, pair, backend="cpu")
        for found, expected in zip(one, whole, strict=True):
            assert torch.equal(found, expected[1:2])


@native
def test_nothing_to_do_and_what_cannot_be_served():
    x, branch, weight, bias, _, _ = summed(2, 5, 64, torch.float32)
    for shape in ((0, 5, 64), (2, 0, 64)):
        assert add_layer_norm(x.new_empty(shape), None, weight, bias, 1e-5, 8, backend="cpu").y.shape == shape
    for tokens, added, reason in (
        (x.double(), None, "float32, bfloat16 and float16, and x is float64"),
        (x, branch.half(), "not all that goes with it"),
        (x, branch.clone().requires_grad_(), "a gradient is required"),
        (x.to("meta"), None, "on the CPU, and a tensor is on meta"),
    ):
        with pytest.raises(ValueError, match=f"'cpu' can't serve: .*{reason}"):
            add_layer_norm(tokens, added, weight, bias, 1e-5, backend="cpu")


@native
def test_it_is_taken_for_images_that_are_worth_the_call_but_never_traced():
    small, large = (make(1, N, 256)[0] for N in (10, 400))
    weight, bias = make(1, 1, 256)[1:]
    names = [OPERATION.choose(None, x, weight, bias, 1e-5).name for x in (small, large, small.expand(99, -1, -1))]
    assert names == ["sdpa", "cpu", "sdpa"]
    exported = torch.export.export(Norm(), (large, weight, bias))
    assert not [node for node in exported.graph.nodes if "gem_fast" in str(node.target)]


class Norm(torch.nn.Module):
    def forward(self, x, weight, bias):
        return add_layer_norm(x, None, weight, bias, 1e-5).y
