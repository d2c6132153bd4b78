"""Position embeddings for other grids than that of training."""

import copy
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from gem_fast.options import GemOptions
from gem_fast.towers import positions
from gem_fast.towers.vision_config import VisionConfig
from gem_fast.towers.vit import GemVisionTransformer


def tower(grid, width=6):
    model = GemVisionTransformer(VisionConfig(width, 1, 1, width, 8, grid, 4), GemOptions(gem_blocks=1))
    model.position_embedding.copy_(torch.randn(model.position_embedding.shape))
    return model


def weights(inputs, outputs):
    """Antialiased bicubic resampling of one axis [outputs, inputs] float64, by its definition (a = -0.5)."""
    scale = max(1.0, inputs / outputs)
    centre = (torch.arange(outputs, dtype=torch.float64) + 0.5) * inputs / outputs
    x = ((torch.arange(inputs) + 0.5 - centre[:, None]) / scale).abs()
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    kernel = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return kernel / kernel.sum(1, keepdim=True)


@pytest.mark.parametrize("trained", [(14, 14), (2, 7), (1, 9), (9, 1)], ids=str)
@pytest.mark.parametrize("grid", [(5, 1), (28, 1), (1, 5), (1, 1), (7, 9), (28, 40)], ids=str)
def test_every_shape_is_resampled_axis_by_axis(trained, grid):
    """One column wide as well, where `torch.nn.functional.interpolate` alone goes wrong."""
    model = tower(trained)
    image = model.position_embedding[1:].double().unflatten(0, trained)
    expected = torch.einsum("hi,ijc,wj->hwc", weights(trained[0], grid[0]), image, weights(trained[1], grid[1]))
    result = model.positions(*grid)
    torch.testing.assert_close(result[1:].double(), expected.flatten(0, 1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result[:1], model.position_embedding[:1])


def test_the_trained_grid_is_taken_as_it_is():
    model = tower((3, 4))
    assert model.positions(3, 4) is model.position_embedding


class TestWhatIsKept:
    """A grid is resampled once, until what it is made of changes."""

    @pytest.fixture
    def made(self, monkeypatch):
        grids, own = [], positions.resampled
        monkeypatch.setattr(positions, "resampled", lambda *a: (grids.append(a[3]), own(*a))[1])
        return grids

    def test_a_grid_is_resampled_once(self, made):
        model = tower((3, 4))
        with torch.inference_mode():
            first = model.positions(5, 6)
        assert model.positions(5, 6) is first
        assert not first.is_inference()
        model.positions(6, 5)
        assert made == [(5, 6), (6, 5)]

    @pytest.mark.parametrize(
        "change",
        [
            lambda model: model.half(),
            lambda model: model.double().float(),
            lambda model: model.position_embedding.mul_(2),
            lambda model: model.load_state_dict({**model.state_dict(), "position_embedding": torch.ones(13, 6)}),
            lambda model: setattr(model, "position_embedding", torch.nn.Parameter(torch.ones(13, 6), False)),
            lambda model: setattr(model, "position_embedding", torch.nn.Parameter(torch.zeros(13, 6), False).add_(1)),
            lambda model: setattr(model.position_embedding, "data", model.position_embedding.data.double()),
        ],
        ids=["half", "there and back", "written", "loaded", "replaced", "replaced and written", "of another type"],
    )
    def test_a_change_of_the_weights_is_seen(self, change):
        model = tower((3, 4))
        model.positions(5, 6)
        change(model)
        fresh = copy.deepcopy(model).positions(5, 6)
        assert model.positions(5, 6).dtype == model.position_embedding.dtype
        assert torch.equal(model.positions(5, 6), fresh)

    def test_autocast_leaves_no_trace(self):
        model = tower((3, 4))
        expected = copy.deepcopy(model).positions(5, 6)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.positions(5, 6), expected)
        assert torch.equal(model.positions(5, 6), expected)

    def test_the_last_few_grids_are_kept(self, made):
        model = tower((3, 4))
        for side in (
            *range(5, 21),
            5,
            21,
            5,
            6,
        ):  # 5 is asked for again before 21 takes a place, which is then that of 6
            model.positions(side, side)
        assert made == [*((side, side) for side in range(5, 22)), (6, 6)]

    def test_state_copies_and_pickles_are_without_it(self, made):
        model = tower((3, 4))
        model.positions(5, 6)
        state = model.state_dict()
        assert len(state) == len(tower((3, 4)).state_dict())
        content = io.BytesIO()
        torch.save(model, content)
        content.seek(0)
        for other in (copy.deepcopy(model), torch.load(content, weights_only=False)):
            assert torch.equal(other.positions(5, 6), model.positions(5, 6))
        assert len(made) == 3

    def test_a_shallow_copy_for_another_grid_has_positions_of_its_own(self):
        model = tower((3, 4))
        model.positions(5, 6)
        fixed = copy.copy(model)
        fixed._parameters = dict(model._parameters)
        fixed.config = replace(model.config, grid=(4, 3))
        fixed.position_embedding = torch.nn.Parameter(torch.randn(13, 6), False)
        assert torch.equal(fixed.positions(5, 6), copy.deepcopy(fixed).positions(5, 6))

    def test_threads_get_the_same(self):
        model = tower((3, 4))
        expected = [copy.deepcopy(model).positions(side, 7) for side in range(5, 13)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda side: model.positions(side, 7), [*range(5, 13)] * 8))
        assert all(torch.equal(table, expected[k % 8]) for k, table in enumerate(found))

    def test_traces_and_fake_tensors_leave_nothing_behind(self, made):
        model = tower((3, 4), width=8)
        pixels = torch.randn(1, 3, 40, 48)
        program = torch.export.export(model, (pixels,))
        torch.compile(model, backend="aot_eager", fullgraph=True)(pixels)
        assert not model._kept._entries
        assert "bicubic" in program.graph_module.code
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.positions(5, 6)
        assert not model._kept._entries

    def test_a_gradient_flows_to_what_they_are_made_of(self):
        model = tower((3, 4))
        model.positions(5, 6)
        model.position_embedding.requires_grad_()
        model.positions(5, 6).sum().backward()
        assert model.position_embedding.grad is not None

    def test_where_no_gradient_is_wanted_they_are_kept_of_what_may_have_one(self, made):
        model = tower((3, 4))
        model.position_embedding.requires_grad_()
        with torch.no_grad():
            assert model.positions(5, 6) is model.positions(5, 6)
        assert made == [(5, 6)]
