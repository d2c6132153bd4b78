"""Models with their blocks in int8: near those in float32, the same for any batch, and what they can't do."""

import copy
import pickle
from functools import partial

import pytest
import torch
from gem_fast.export import ExportError, export_onnx
from gem_fast.export.plain import plain_torch
from gem_fast.kernels import cpu_library
from gem_fast.kernels.cpu_library import why_no_vnni
from typer.testing import CliRunner

import gem_fast
from gem_fast import ModelError
from gem_fast.cli import app
from gem_fast.evaluation.scenes import load_scenes
from gem_fast.loading import require_int8
from gem_fast.method import methods
from gem_fast.preprocess import to_pixels
from gem_fast.towers.int8 import in_int8, quantize_blocks, smoothing_of
from gem_fast.towers.packing import pack_vision
from gem_fast.towers.served import vision_config
from tests.towers.families import CONFIGS, make_model

BACKEND = "sdpa" if why_no_vnni() else None
LARGEST = 0.02  # relative error of features


@pytest.fixture(scope="module")
def tiny():
    return gem_fast.load("gem-tiny")


@pytest.fixture(scope="module")
def int8():
    return gem_fast.load("gem-tiny", dtype="int8", backend=BACKEND)


@pytest.fixture(scope="module")
def pixels(tiny):
    side = tiny.defaults.size
    return torch.stack([to_pixels(scene.image, (side, side), tiny.mean, tiny.std) for scene in load_scenes()[:12]])


def error(found, exact):
    return float((found.float() - exact).norm() / exact.norm())


def of_method(vision, name):
    other = copy.copy(vision)
    other.method = methods()[name]
    return other


@pytest.mark.parametrize("name", methods())
def test_every_method_is_near_float32_and_the_same_for_any_batch(tiny, int8, pixels, name):
    exact = of_method(tiny.vision, name)(pixels[:3], original=True)
    found = of_method(int8.vision, name)(pixels[:3], original=True)
    for ours, theirs in zip(found, exact, strict=True):
        assert 0 < error(ours, theirs) < LARGEST
    singles = [of_method(int8.vision, name)(pixels[i : i + 1], original=True) for i in range(3)]
    for index, ours in enumerate(found):
        assert torch.equal(ours, torch.cat([single[index] for single in singles]))


def test_labels_of_the_held_out_scenes(tiny, int8):
    scenes, same, all_pixels = load_scenes()[::2], 0, 0
    images, words = [scene.image for scene in scenes], [list(scene.masks) for scene in scenes]
    for ours, theirs in zip(int8.segment(images, words), tiny.segment(images, words), strict=True):
        same += int((ours.labels == theirs.labels).sum())
        all_pixels += theirs.labels.size
    assert same / all_pixels >= 0.995


@pytest.mark.parametrize("attends_in", [torch.float32, torch.bfloat16], ids=str)
def test_attention_computes_in_either_type(tiny, int8, pixels, attends_in):
    vision = copy.deepcopy(int8.vision)
    for block in vision.blocks:
        block.attends_in = attends_in
    assert error(vision(pixels).patches, tiny.vision(pixels).patches) < LARGEST


def test_channels_of_large_gain_are_smoothed(tiny, pixels):
    """As trained towers have them: with the weights behind them as small, the function is the same."""
    vision = copy.deepcopy(tiny.vision)
    for block in vision.blocks:
        for norm, linear in ((block.ln_1, block.qkv), (block.ln_2, block.mlp_in)):
            factors = torch.ones(len(norm.weight))
            factors[3::64] = 30
            norm.weight *= factors
            norm.bias *= factors
            linear.weight /= factors
    exact = vision(pixels).patches
    assert error(quantize_blocks(vision)(pixels).patches, exact) < LARGEST


def test_smoothing_is_of_ratios_alone():
    torch.manual_seed(0)
    norm, layer = torch.nn.LayerNorm(64), torch.nn.Linear(64, 32)
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    before = smoothing_of(norm, layer)
    layer.weight.data *= 1e-6
    torch.testing.assert_close(smoothing_of(norm, layer), before)
    norm.bias.data[7] = 1000  # a channel whose bias alone is large
    assert smoothing_of(norm, layer)[7] < before[7] / 5


@pytest.mark.parametrize("name", ["siglip-wide", "eva02", "pe", "clipa"])
def test_other_families_by_weights_in_float16(name):
    torch.manual_seed(0)
    state = {
        key.removeprefix("visual."): value.half()
        for key, value in make_model(CONFIGS[name]).state_dict().items()
        if key.startswith("visual.")
    }
    vision = pack_vision(dict(state), vision_config(CONFIGS[name]), methods()["gem"], BACKEND)
    x = torch.randn(2, 3, 40, 72, generator=torch.Generator().manual_seed(0))
    exact = copy.deepcopy(vision).float()(x, original=True)
    short = copy.deepcopy(vision).bfloat16()(x.bfloat16(), original=True)
    found = quantize_blocks(vision)(x, original=True)
    assert error(found.patches, exact.patches) < 0.05
    # Rounding in 8 bits costs a token of so few channels up to twice what bfloat16 does.
    allowed = max(0.05, 3 * error(short.original_class.float(), exact.original_class))
    assert error(found.original_class, exact.original_class) < allowed


def test_holds_no_block_in_float32_as_well(tiny, int8):
    bytes_of = {
        model: sum(t.nbytes for name, t in model.vision.state_dict().items() if name.startswith("blocks."))
        for model in (tiny, int8)
    }
    assert bytes_of[int8] < 0.3 * bytes_of[tiny]


def test_copies_and_state_dicts_give_the_same(int8, pixels):
    found = int8.vision(pixels[:2]).patches
    assert torch.equal(pickle.loads(pickle.dumps(int8.vision))(pixels[:2]).patches, found)
    other = gem_fast.load("gem-tiny", dtype="int8", backend=BACKEND)
    assert other.identity() == int8.identity()
    for value in other.vision.state_dict().values():
        value.zero_()
    other.vision.load_state_dict(int8.vision.state_dict())
    assert torch.equal(other.vision(pixels[:2]).patches, found)


def test_says_what_it_is(tiny, int8):
    assert in_int8(int8.vision)
    assert not in_int8(tiny.vision)
    assert int8.identity()["dtype"] == "int8"
    assert int8.identity()["weights"] != tiny.identity()["weights"]
    assert gem_fast.load("gem-tiny", dtype=torch.int8, backend=BACKEND).identity() == int8.identity()


def test_what_can_not_be_had_is_refused(int8, monkeypatch):
    with pytest.raises(ModelError, match=r"with its scales in float32, and was asked for torch\.bfloat16"):
        int8.vision.to(torch.bfloat16)
    assert {t.dtype for t in int8.vision.state_dict().values()} == {torch.float32, torch.int8}  # nothing has moved
    with pytest.raises(ModelError, match="dtype int8 is for the CPU, and the device is cuda:1: take float16"):
        require_int8(torch.device("cuda:1"), None)
    with pytest.raises(ModelError, match="dtype must be one of float32, bfloat16, float16, int8"):
        gem_fast.load("gem-tiny", dtype="int4")
    monkeypatch.setattr(cpu_library, "_MISSING", "its native library was not built")
    monkeypatch.setattr(cpu_library, "_LIBRARY", None)
    with pytest.raises(ModelError, match=r"dtype int8 can't run here: its native library was not built\. Take"):
        gem_fast.load("gem-tiny", dtype="int8")


def test_by_torch_alone_it_is_the_same_rounding(int8, pixels):
    plain = gem_fast.load("gem-tiny", dtype="int8", backend="sdpa")
    assert error(plain.vision(pixels).patches, int8.vision(pixels).patches) < 5e-3


def test_exports_take_float32(int8, tmp_path):
    for refused in (partial(export_onnx, int8, tmp_path / "out"), partial(plain_torch, int8.vision, "float32")):
        with pytest.raises(ExportError, match="load the model in float32 on the CPU"):
            refused()
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_it(folder, tmp_path):
    if BACKEND:
        pytest.skip(why_no_vnni())
    out = str(tmp_path / "out")
    done = CliRunner().invoke(
        app, ["segment", str(folder / "a.png"), "--prompt", "cat", "--dtype", "int8", "--out", out]
    )
    assert done.exit_code == 0, done.output
    assert '"int8"' in (tmp_path / "out" / "run.json").read_text()
    done = CliRunner().invoke(app, ["export", "--dtype", "int8", "--out", out])
    assert done.exit_code == 2
    assert "--quantize int8" in done.output
