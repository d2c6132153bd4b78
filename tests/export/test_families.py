"""Graphs of other families' towers under ONNX Runtime against torch."""

import functools
import itertools

import pytest
import torch
from gem_fast.export.comparison import relative_error
from gem_fast.export.export_options import ExportOptions
from gem_fast.export.onnx_export import export_onnx
from gem_fast.export.segmenter_export import export_segmenter

import gem_fast
from gem_fast.runtime import GemRuntime
from tests.export.test_image_encoder import open_encoder
from tests.towers.blip_models import make_blip, write_transformers, write_vocabulary
from tests.towers.families import CONFIGS, make_model, word_tokenizer, write_folder


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")

    @functools.cache
    def folder(name):
        tokenizer = word_tokenizer() if CONFIGS[name]["text_cfg"].get("hf_tokenizer_name") else None
        return str(write_folder(root / name, make_model(CONFIGS[name]), CONFIGS[name], tokenizer))

    return lambda name, **options: gem_fast.load(folder(name), **options)


def pixels(H, W):
    return torch.randn(2, 3, H, W, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "size"),
    [*((name, None) for name in CONFIGS), *((name, (40, 72)) for name in ("siglip", "clipa", "eva02", "pe"))],
)
def test_image_encoders_agree_with_torch(load, name, size):
    model = load(name)
    encode = open_encoder(model, size, original=True, feature_surgery=True)
    found, truth = encode(pixels(40, 72)), model.features(pixels(40, 72), original=True)
    assert relative_error(found["patch_features"], truth.patches) < 1e-5
    assert relative_error(found["original_features"], truth.original_patches) < 1e-5
    assert relative_error(found["image_embedding"], truth.original_class) < 1e-5


@pytest.mark.parametrize("attention", ["portable", "ort", "onnx"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("siglip-wide", {"pooling": "value"}),
        ("siglip", {"method": "naclip"}),
        ("eva02", {"rotated": True}),
        ("eva02", {"method": "sclip"}),
        ("pe-bare", {"method": "clip"}),
        ("coca", {"method": "clearclip"}),
    ],
)
def test_choices_and_methods(load, name, options, attention):
    model = load(name, **options)
    encode = open_encoder(model, None, opset=23 if attention == "onnx" else 18, attention=attention)
    assert relative_error(encode(pixels(48, 40))["patch_features"], model.features(pixels(48, 40))) < 1e-5


# Each method on a family, and each family with a method.
PAIRS = list(zip(CONFIGS, itertools.cycle(name for name in gem_fast.methods() if name != "gem"), strict=False))


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_methods_agree_with_torch(load, name, method):
    model = load(name, method=method)
    found = open_encoder(model, (40, 72))(pixels(40, 72))["patch_features"]
    assert relative_error(found, model.features(pixels(40, 72))) < 1e-5


@pytest.mark.parametrize("name", ["siglip-wide", "coca"])
def test_pixels_near_ties_refuse_no_export(load, name, tmp_path):
    """Where PyTorch alone happens to turn few of them."""
    assert export_onnx(load(name), tmp_path / "out", ExportOptions(dtype="bf16", dynamic_size=True)).check


ALIKE = [f"{kind} {thing}" for kind in ("red", "big", "old", "my") for thing in ("cat", "dog", "car", "tree", "house")]


@pytest.mark.parametrize(("dtype", "prompts"), [("fp16", ["cat", "dog"]), ("bf16", ["cat"]), ("fp32", ALIKE)])
def test_nor_one_of_a_segmenter(load, tmp_path, dtype, prompts):
    """Nor do confidences that small errors change much, or words that are the same."""
    model = load("siglip-wide")
    query = model.query(prompts, threshold=0.0 if len(prompts) > 1 else None)
    assert export_segmenter(model, tmp_path / "out", query, ExportOptions(dtype=dtype)).check


TEXTS = ["cat", "a photo of the red car.", "The_dog & bus!!", "Tom &amp; Jerry", "tree " * 30, "cafés 猫"]


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return gem_fast.load(str(write_transformers(tmp_path_factory.mktemp("blip") / "small", make_blip())))


@pytest.mark.parametrize("size", [(40, 72), None], ids=["fixed", "dynamic"])
def test_blips_image_encoder_agrees_with_torch(blip, size):
    found = open_encoder(blip, size)(pixels(40, 72))["patch_features"]
    assert relative_error(found, blip.features(pixels(40, 72))) < 1e-5


@pytest.mark.filterwarnings("ignore:.* is cut")
@pytest.mark.parametrize("name", ["siglip", "clipa", "metaclip2", "mobileclip2", "coca", "blip"])
def test_runtime_gives_the_engines_labels(load, name, tmp_path, picture, request):
    if name == "clipa":
        model = load(name, tokenizer=write_vocabulary(tmp_path / "words"))
    else:
        model = request.getfixturevalue("blip") if name == "blip" else load(name)
    export_onnx(model, tmp_path / "out", ExportOptions(sizes=((48, 48),)))
    runtime = GemRuntime(tmp_path / "out", threads=1)
    found, truth = (each.text.encode(TEXTS, ("a photo of {}",)) for each in (runtime, model))
    assert relative_error(found, truth) < 1e-5
    photo = picture(48, 48)
    ours, theirs = (each.segment(photo, ["cat", "dog", "red car"], threshold=0.0) for each in (model, runtime))
    assert (ours.labels == theirs.labels).mean() > 0.999
