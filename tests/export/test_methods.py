"""Every method as a graph under ONNX Runtime, and in the runtime without torch, against the engine."""

import functools
from dataclasses import asdict

import pytest
import torch
from gem_fast.export import ExportError, ExportOptions, export_onnx
from gem_fast.export.comparison import relative_error
from gem_fast.export.plain import plain_torch
from gem_fast.export.program import traced

import gem_fast
from gem_fast.method import Method
from gem_fast.runtime import GemRuntime
from gem_fast.runtime.agreement import MARGIN
from tests.export.test_image_encoder import open_encoder, pixels

WAYS = [("portable", 18), ("ort", 18), ("onnx", 23), ("onnx", 24)]
ALL = list(gem_fast.methods())
OWN = {
    "adaptive": Method("adaptive", 2, beside=True, attention="qq+kv", average=True, scale="adaptive"),
    "in place": Method("in place", 3, attention="kk", distance=2.0, scale=0.3, residual=False),
    "summed": Method("summed", 1, attention="qq+vv", iterations=1, normalize=True, scale=4.0, mlp=True),
}


@functools.cache
def load(method):
    return gem_fast.load("gem-tiny", method=OWN.get(method, method))


@pytest.mark.parametrize("method", [*ALL, *OWN])
@pytest.mark.parametrize(("attention", "opset"), WAYS)
def test_every_kind_of_attention_agrees_with_torch(method, attention, opset):
    """Of a method every other kind with the original path beside, and of a kind every other method."""
    model = load(method)
    original = ([*ALL, *OWN].index(method) + WAYS.index((attention, opset))) % 2 == 0
    encode = open_encoder(model, None, original, opset, original, attention=attention)
    for shape in ((1, 64, 64), (3, 40, 72), (1, 8, 8)):
        found, truth = encode(pixels(*shape)), model.features(pixels(*shape), original=True)
        assert relative_error(found["patch_features"], truth.patches) <= 2.5e-6  # 2.03e-6 with ONNX Runtime 1.23
        assert not original or relative_error(found["original_features"], truth.original_patches) <= 2e-6
        assert not original or relative_error(found["image_embedding"], truth.original_class) <= 2e-6


@functools.cache
def in_half(method):
    """The model, its features of a batch, and the error that float16 may have."""
    model, batch = load(method), pixels(3, 64, 48)
    truth = model.features(batch)
    with torch.inference_mode():
        plain = plain_torch(model.vision, "fp16")(batch).patches
    return model, truth, MARGIN * relative_error(plain, truth)


@pytest.mark.parametrize("method", [*ALL, *OWN])
@pytest.mark.parametrize(("attention", "opset"), WAYS[:3])
def test_half_precision_at_a_fixed_size_loses_what_torch_loses_in_it(method, attention, opset):
    model, truth, allowed = in_half(method)
    encode = open_encoder(model, (64, 48), opset=opset, attention=attention, dtype="fp16")
    assert relative_error(encode(pixels(3, 64, 48))["patch_features"], truth) <= allowed


@pytest.mark.parametrize("method", ["naclip", "clip-surgery"])
def test_the_runtime_gives_the_engines_labels_and_says_the_method(tmp_path, method, picture):
    model = load(method)
    manifest = export_onnx(model, tmp_path / "exported", ExportOptions())  # which compares every graph with torch
    assert manifest.model.options == asdict(model.vision.method)
    runtime = GemRuntime(tmp_path / "exported")
    assert runtime.identity()["method"] == model.identity()["method"]
    own, found = (each.segment(picture(96, 96), ["cat", "dog"], size=96, resize="squash") for each in (model, runtime))
    assert (own.labels == found.labels).mean() >= 0.9999
    assert abs(own.scores - found.scores).max() < 2e-5


@pytest.mark.parametrize("method", ["sclip", "naclip"])
def test_programs_of_torch_carry_a_method(method):
    model, batch = load(method), pixels(3, 64, 48)
    found = traced(model.vision, (64, 48)).module()(batch)
    assert relative_error(found, model.features(batch)) <= 2e-6


@pytest.mark.parametrize("method", ["clip", "maskclip", "sclip", "naclip"])
def test_the_plugins_are_gems(method):
    with pytest.raises(ExportError, match=f"for {method} with normalize=False use attention onnx"):
        open_encoder(load(method), (64, 48), opset=23, attention="plugin")
