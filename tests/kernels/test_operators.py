"""Operators of this project: passed by where nothing looks on, and seen by whatever does."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from gem_fast.kernels import decode_heatmaps, decode_labels, layer_norm, pair_attention, quick_gelu, silu_gate
from gem_fast.kernels.cpu_library import paths
from gem_fast.kernels.operators import register
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "gem_fast::doubled_in_tests"
doubled = register("doubled_in_tests(Tensor x) -> Tensor", lambda x: 2 * x, torch.empty_like)
X = torch.arange(6.0).view(2, 3)


class Names(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        self.found.append(operation.name())
        return operation(*arguments, **(options or {}))


def dispatched(call):
    """Whether torch's dispatcher gets the operator, by its profiler."""
    with torch.profiler.profile() as seen:
        assert torch.equal(call(), 2 * X)
    return NAME in {event.key for event in seen.key_averages()}


def test_the_dispatcher_is_passed_by_where_nothing_looks_on():
    assert not dispatched(lambda: doubled(X))
    assert dispatched(lambda: torch.ops.gem_fast.doubled_in_tests(X))
    assert not dispatched(lambda: doubled(torch.nn.Parameter(X, requires_grad=False)))


def test_modes_see_it():
    with Names() as seen:
        assert torch.equal(doubled(X), 2 * X)
    assert NAME in seen.found


def test_fake_tensors_take_its_fake():
    with FakeTensorMode() as mode:
        inside = doubled(torch.empty(4, 5))
    outside = doubled(mode.from_tensor(X))
    assert [type(each) for each in (inside, outside)] == [FakeTensor] * 2
    assert [each.shape for each in (inside, outside)] == [(4, 5), (2, 3)]


@pytest.mark.parametrize(
    "graph",
    [
        lambda call: make_fx(call)(X).graph,
        lambda call: torch.jit.trace(call, X).graph,
        lambda call: torch.export.export(Module(call), (X,)).graph,
        lambda call: torch.export.export(Module(call), (X,), strict=True).graph,
    ],
    ids=["make_fx", "jit", "export", "strict export"],
)
def test_traces_have_it(graph):
    assert "gem_fast" in str(graph(lambda x: doubled(x) + 1))


class Module(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.forward = call


def test_transforms_take_it():
    assert torch.equal(torch.vmap(lambda x: doubled(x) + 1)(X), 2 * X + 1)
    assert dispatched(lambda: torch.vmap(lambda y: doubled(X), out_dims=None)(X))  # whatever of it they change


def added(x, branch):
    """A sum in the native LayerNorm, which reads memory."""
    one = torch.ones(x.shape[-1])
    return layer_norm.add_layer_norm(x, branch, one, one, 1e-5, backend="cpu" if paths() else None).tokens


@pytest.mark.parametrize("signs", [(1, -1), (-1, 1), (-1, -1)], ids=str)
def test_a_sign_that_waits_is_not_lost_in_any_argument(signs):
    x, branch = (X.view(1, 2, 3) + each for each in (0, 10))
    waiting = [torch._neg_view(each) if sign < 0 else each for each, sign in zip((x, branch), signs, strict=True)]
    assert torch.equal(added(*waiting), signs[0] * x + signs[1] * branch)
    assert torch.equal(doubled(torch._neg_view(X)), -2 * X)


def test_a_tensor_of_another_kind_is_seen_in_any_argument():
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = mode.from_tensor(X.view(1, 2, 3))
    assert type(added(X.view(1, 2, 3), fake)) is FakeTensor


SCORES = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
LOOKS_ON = {
    "make_fx": lambda call: make_fx(call)(SCORES)(-SCORES),
    "jit": lambda call: torch.jit.trace(call, SCORES)(-SCORES),
    "functionalize": lambda call: torch.func.functionalize(call)(-SCORES),
    "vmap": lambda call: torch.vmap(call)(-SCORES[None])[0],
    "negative": lambda call: call(torch._neg_view(SCORES)),
    "subclass": lambda call: call((-SCORES).as_subclass(Own)),
    "fake": lambda call: torch.empty(call(FakeTensorMode(allow_non_fake_inputs=True).from_tensor(SCORES)).shape),
}


class Own(torch.Tensor):
    pass


def packed(scores):
    """Scores [B, N, D] as the projections of two heads."""
    return scores[:, :, None, None].expand(-1, -1, 3, 2, -1)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("looks_on", LOOKS_ON)
@pytest.mark.parametrize(
    "call",
    [
        lambda scores: decode_labels(scores, (9, 11), logit_scale=1.0)[0],
        lambda scores: decode_heatmaps(scores, (9, 11)),
        lambda scores: quick_gelu(scores.clone()),
        lambda scores: silu_gate(scores.clone(), scores),
        lambda scores: layer_norm.add_layer_norm(scores, None, torch.ones(8), torch.ones(8), 1e-5).y,
        lambda scores: pair_attention(packed(scores), 0.1, "qk"),
        lambda scores: pair_attention(packed(scores), 0.1, "qk", grid=(1, 3), sigma=2.0),
    ],
    ids=["labels", "heatmaps", "quick_gelu", "silu_gate", "layer_norm", "pairs", "near pairs"],
)
def test_whatever_looks_on_gets_the_same(call, looks_on, monkeypatch):
    monkeypatch.setattr(layer_norm.cpu, "_LEAST", 0)
    expected, found = call(-SCORES), LOOKS_ON[looks_on](call)
    assert found.shape == expected.shape
    if looks_on != "fake":
        torch.testing.assert_close(found, expected, check_device=False)


def test_in_the_checkouts_folder_the_package_is_found_by_another_name_too(monkeypatch):
    """As transformers does, which looks for Hugging Face's package of that name before it makes a model."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    monkeypatch.setitem(sys.modules, "kernels", None)  # so that it is what it was afterwards
    del sys.modules["kernels"]
    assert importlib.import_module("kernels").quick_gelu is quick_gelu
    assert not any(name.startswith("kernels.") for name in sys.modules)
