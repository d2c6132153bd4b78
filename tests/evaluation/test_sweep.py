"""Sweeps: each variant is what a model of its own gives, and what they share is computed once."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import gem_fast
from gem_fast.cli import app
from gem_fast.evaluation.sweep import parse_sweep, swept
from gem_fast.towers.block import Block
from tests.towers.families import CONFIGS, make_model, word_tokenizer, write_folder


def scores_of(model, words, picture):
    pixels = model.pixels(picture, (64, 96))
    patches = model.patch_features(pixels[None], (64, 96))
    return model.scores(patches, [0], words, [1] * len(words))[0].numpy()


def test_variants_are_models_of_their_own(picture):
    image, base = picture(64, 96), gem_fast.load("gem-tiny", inverse_temperature=None)
    words = base.encode_text(["cat", "dog"])
    both = swept(base, ["iterations=0,2", "projections=v,qk"])
    found = scores_of(both, words.repeat(len(both.variants), 1), image)
    for k, (iterations, projections) in enumerate([(0, "v"), (0, "qk"), (2, "v"), (2, "qk")]):
        settings = {"iterations": iterations, "projections": projections, "inverse_temperature": None}
        alone = gem_fast.load("gem-tiny", **settings)
        np.testing.assert_allclose(found[2 * k : 2 * k + 2], scores_of(alone, words, image), atol=2e-5)


def test_temperature_multiplies_the_adaptive_one(picture):
    image, base = picture(64, 96), gem_fast.load("gem-tiny")  # whose inverse temperature is a fixed 8
    words = base.encode_text(["cat", "dog"])
    half = scores_of(swept(base, ["temperature=0.5"]), words, image)
    np.testing.assert_allclose(
        half, scores_of(gem_fast.load("gem-tiny", inverse_temperature=16), words, image), atol=2e-5
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("iterations", "NAME=VALUE"),
        ("blocks=2", "one of"),
        ("iterations=x", "can't take 'x'"),
        ("normalize=1", "take '1'"),
        ("projections=z", "z"),
        ("temperature=0", "1e-06 to"),
        ("temperature=1e-300", "1e-06 to"),
        ("temperature=inf", "1e-06 to"),
        ("iterations=0,1,0", "iterations names a value more than once: 0, 1, 0"),
        ("temperature=1,1.0", "more than once"),
    ],
)
def test_wrong_sweeps_say_what_is_right(text, said):
    with pytest.raises(ValueError, match=said):
        parse_sweep([text], gem_fast.methods()["gem"])


def test_settings_of_one_name_are_joined():
    method = gem_fast.methods()["gem"]
    joined = parse_sweep(["iterations=0", "temperature=1,2", "iterations=3"], method)
    assert joined == parse_sweep(["iterations=0,3", "temperature=1,2"], method)
    with pytest.raises(ValueError, match="more than once"):
        parse_sweep(["iterations=0", "iterations=0"], method)


def test_without_normalising_the_scale_is_the_heads_and_nothing_is_iterated_unless_it_is_asked_for():
    gem = gem_fast.methods()["gem"]
    one, other, asked = parse_sweep(["normalize=true,false"], gem) + parse_sweep(
        ["normalize=false", "iterations=2"], gem
    )
    assert one.method == gem
    assert other.method == replace(gem, normalize=False, iterations=0, scale="head")
    assert asked.method == replace(gem, normalize=False, iterations=2, scale="head")


@pytest.mark.parametrize("name", ["gem", "clip-surgery", "clearclip"])
def test_a_method_alone_is_itself(picture, name):
    """With and without a residual, and by its own scale."""
    model = gem_fast.load("gem-tiny", method=name)
    pixels = model.pixels(picture(64, 96), (64, 96))[None]
    (found,) = swept(model, ["temperature=1"]).patch_features(pixels, (64, 96))
    torch.testing.assert_close(found, model.patch_features(pixels, (64, 96)), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("temperature", ["1e-6", "1e6"])
def test_the_widest_multiples_give_scores(picture, temperature):
    base = swept(gem_fast.load("gem-tiny"), [f"temperature={temperature}"])
    assert np.isfinite(scores_of(base, base.encode_text(["cat", "dog"]), picture(64, 96))).all()


def test_feature_surgery_is_refused():
    model = gem_fast.load("gem-tiny", method="clip-surgery", feature_surgery=True)
    with pytest.raises(ValueError, match="without feature_surgery"):
        swept(model, ["iterations=0"])


def test_methods_without_a_path_beside_are_refused():
    with pytest.raises(ValueError, match="sclip is none"):
        parse_sweep(["iterations=0"], gem_fast.methods()["sclip"])


def test_the_command_has_a_row_and_a_point_for_each(tmp_path):
    folder = tmp_path / "own"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    Image.new("RGB", (64, 48), "red").save(folder / "images/a.png")
    Image.fromarray(np.tile(np.array([0, 1], np.uint8), (48, 32))).save(folder / "labels/a.png")
    (folder / "classes.txt").write_text("cat\ndog\n")
    options = ["--sweep", "iterations=0,1", "--plot", tmp_path / "p.png", "--json", tmp_path / "r.json", "--size", 64]
    result = CliRunner().invoke(app, ["evaluate", *map(str, ["--data", folder, *options, "--progress", "none"])])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "r.json").read_text())
    assert [row["settings"]["sweep"] for row in rows] == ["iterations=0", "iterations=1"]
    assert Image.open(tmp_path / "p.png").size[0] > 300


def test_what_the_variants_share_is_computed_once(picture, monkeypatch):
    calls = {"project": 0, "original": 0}
    for name in calls:
        own = getattr(Block, name)

        def counted(*given, name=name, own=own):
            calls[name] += 1
            return own(*given)

        monkeypatch.setattr(Block, name, counted)
    model = swept(gem_fast.load("gem-tiny"), ["iterations=0,1,2", "projections=q,kv"])
    assert len(model.variants) == 6
    model.patch_features(model.pixels(picture(64, 96), (64, 96))[None], (64, 96))
    assert calls == {"project": 7, "original": 6}


@pytest.mark.parametrize("name", ["siglip", "eva02", "pe"])
def test_variants_of_other_families_are_models_of_their_own(tmp_path, name):
    """Without a class token, with rotated q and k, and with a LayerNorm behind the attention."""
    tokenizer = word_tokenizer() if CONFIGS[name]["text_cfg"].get("hf_tokenizer_name") else None
    folder = str(write_folder(tmp_path / name, make_model(CONFIGS[name]), CONFIGS[name], tokenizer))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 72, 3), np.uint8)
    both = swept(gem_fast.load(folder), ["iterations=0,1"]).patch_features(pixels, (40, 72))
    for iterations, found in enumerate(both):
        alone = gem_fast.load(folder, iterations=iterations).patch_features(pixels, (40, 72))
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=2e-6)
