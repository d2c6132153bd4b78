"""Operators of this project: passed by where nothing looks on, and seen by whatever does."""

import pytest
import torch
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
    assert dispatched(lambda: doubled(torch.nn.Parameter(X, requires_grad=False)))


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


def test_a_sign_that_waits_is_not_lost():
    assert torch.equal(doubled(torch._neg_view(X)), -2 * X)
