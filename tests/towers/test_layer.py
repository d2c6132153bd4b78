"""A linear layer whose weight lies as the CPU's product reads it: who asks for it finds it plain and right."""

import copy
import io
import pickle
import platform
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from gem_fast.kernels.cpu_library import why_no_panels
from gem_fast.kernels.linear import panels
from torch import nn

import gem_fast
from gem_fast.towers.layer import Linear, in_turn, prepack

pytestmark = [
    pytest.mark.skipif(
        platform.machine() != "x86_64" or not torch.backends.mkldnn.is_available(), reason="oneDNN serves on x86-64"
    ),
    pytest.mark.skipif(torch.__version__ < (2, 14), reason="this torch traces no weight in oneDNN's layout"),
]


@pytest.fixture(params=["onednn", "panels"])
def plain(request, monkeypatch):
    """Layers that are packed for oneDNN, and for our own product where this CPU has it."""
    if request.param == "panels":
        if why_no_panels():
            pytest.skip(why_no_panels())
        monkeypatch.setattr(panels, "_LEAST", 0)
    torch.manual_seed(0)
    return nn.Sequential(Linear(48, 96, activation="gelu"), nn.LayerNorm(96), Linear(96, 32, bias=False)).eval()


@pytest.fixture
def packed(plain):
    return prepack(copy.deepcopy(plain).requires_grad_(False))


@pytest.fixture
def x():
    return torch.randn(3, 50, 48, generator=torch.Generator().manual_seed(1))


def held(tower):
    """Whether each linear layer's weight is in the layout of a product."""
    return [each.is_packed for each in tower.modules() if isinstance(each, Linear)]


def same(tower, other):
    expected = other.state_dict()
    assert list(tower.state_dict()) == list(expected)
    return all(torch.equal(value, expected[name]) for name, value in tower.state_dict().items())


def test_its_results_are_those_of_plain_weights(plain, packed, x):
    assert held(packed) == [True, True]
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), plain(x))
        assert torch.equal(packed(x[:1]), packed(x)[:1])
        assert torch.equal(packed(x[0, 0]), packed(x)[0, 0])  # a single row too
    assert held(packed) == [True, True]


def test_parameters_count_as_before(plain, packed):
    facts = [sorted((p.nbytes, p.numel(), str(p.dtype)) for p in each.parameters()) for each in (plain, packed)]
    assert facts[0] == facts[1]


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda tower: pickle.loads(pickle.dumps(tower)),
        lambda tower: torch.load(saved(tower), weights_only=False),
    ],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_copies_are_plain_and_leave_it_packed(plain, packed, x, copied):
    other = copied(packed)
    assert held(other) == [False, False]
    assert held(packed) == [True, True]
    assert same(other, plain)
    assert torch.equal(other(x), plain(x))


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_process_that_is_started_with_it_has_it(plain, packed, start, tmp_path):
    torch.multiprocessing.start_processes(save_state, (packed, tmp_path / "state"), start_method=start)
    found = torch.load(tmp_path / "state", weights_only=True)
    assert all(torch.equal(value, found[name]) for name, value in plain.state_dict().items())
    assert held(packed) == [True, True]


def save_state(_, tower, path):
    torch.save(tower.state_dict(), path)


def saved(tower):
    content = io.BytesIO()
    torch.save(tower, content)
    content.seek(0)
    return content


def test_state_dicts_are_plain_and_leave_it_packed(plain, packed):
    assert same(packed, plain)
    torch.load(saved(packed.state_dict()), weights_only=True)
    assert held(packed) == [True, True]


def test_a_weight_that_was_asked_for_can_be_written_to(plain, packed, x):
    with torch.inference_mode():
        packed(x)
        weight = packed[2].weight
    assert torch.equal(weight, plain[2].weight)
    assert held(packed) == [True, False]
    for tower in (plain, packed):
        with torch.no_grad():
            tower[2].weight[0].mul_(2)
            tower[0].weight = nn.Parameter(tower[0].weight * 3)
    assert torch.equal(packed(x), plain(x))


@pytest.mark.parametrize(
    "change",
    [
        lambda tower: tower.double(),
        lambda tower: tower.to(torch.bfloat16),
        lambda tower: tower.share_memory(),
        lambda tower: tower.load_state_dict({n: v + 1 for n, v in tower.state_dict().items()}) and tower,
    ],
    ids=["double", "bfloat16", "shared", "loaded"],
)
def test_what_changes_weights_leaves_plain_ones(plain, packed, change):
    found, expected = change(packed), change(plain)
    assert held(found) == [False, False]
    assert same(found, expected)
    assert held(prepack(found.requires_grad_(False))) == [found[0].bias.dtype != torch.float64] * 2


def test_hooks_on_layers_that_run_in_one_pass_are_called(packed, x):
    second, seen = prepack(Linear(96, 32).requires_grad_(False)), []
    quiet = in_turn(packed[0], second, x)
    packed[0].register_forward_hook(lambda _, inputs, output: seen.append(output.shape))
    second.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    assert torch.equal(in_turn(packed[0], second, x), quiet)
    assert seen == [(3, 50, 96)] * 2


def test_a_gradient_flows_through_it(plain, packed, x):
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for tower, each in zip((plain, packed), inputs, strict=True):
        tower(each).square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)


class Patches(nn.Module):
    """A tower as one that gives a tensor."""

    def __init__(self):
        super().__init__()
        self.tower = gem_fast.load("gem-tiny", gem_blocks=1).vision

    def forward(self, pixels):
        return self.tower(pixels).patches


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_what_is_traced_of_one_image_is_right_for_several(plain, packed, x):
    torch.testing.assert_close(torch.jit.trace(packed, x[:1])(x), plain(x))
    patches, pixels = Patches(), torch.rand(3, 3, 32, 48)
    torch.testing.assert_close(torch.jit.trace(patches, pixels[:1])(pixels), patches(pixels), atol=1e-5, rtol=1e-5)


def test_it_compiles_and_exports(plain, packed, x):
    torch._dynamo.reset()
    compiled = torch.compile(packed, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), plain(x))
    program = torch.export.export(prepack(packed), (x,))
    torch.testing.assert_close(program.module()(x), plain(x))
    held = {name.replace("panels", "weight"): value.numel() for name, value in program.state_dict.items()}
    assert held == {name: value.numel() for name, value in plain.state_dict().items()}


def test_threads_that_ask_and_compute_at_once(plain, packed, x):
    """The first to ask lays the weight out; the others get it or the same numbers."""
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(lambda: packed[0].weight.clone()) for _ in range(4)]
        computed = [pool.submit(packed, x) for _ in range(4)]
    assert all(torch.equal(each.result(), plain[0].weight) for each in asked)
    for each in computed:
        torch.testing.assert_close(each.result(), plain(x))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loaded_models_have_it(dtype):
    model = gem_fast.load("gem-tiny", dtype=dtype)
    assert all(held(model.vision))
    digest = model.weights_sha256
    assert all(held(model.vision))
    assert digest == gem_fast.load("gem-tiny", dtype=dtype).weights_sha256
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    plain = copy.deepcopy(model.vision)
    with torch.inference_mode():
        torch.testing.assert_close(
            model.features(pixels), plain(pixels).patches, rtol=1e-5, atol=2e-2 if dtype == "bfloat16" else 1e-5
        )


def test_copies_for_other_processes_have_it(monkeypatch):
    from gem_fast import model as module

    seen = []
    monkeypatch.setattr(module, "encoder", lambda model, *_: seen.append(model.vision))
    model = gem_fast.load("gem-tiny")
    model.replica(model.query(["cat"]))("cpu", 1)
    assert all(held(seen[0]))
    assert same(seen[0], model.vision)
