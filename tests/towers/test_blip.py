"""BLIP: transformers' folders and Salesforce's checkpoints, its embeddings, its tokenizer and GEM on it."""

import copy
import json

import pytest
import torch

import gem_fast
from gem_fast import ModelError
from gem_fast.towers import blip_config, configs
from gem_fast.towers.text import embed_tokens
from tests.command_line import invoke, plain
from tests.towers.blip_models import (
    WORDS,
    embeddings,
    make_blip,
    salesforce_state,
    write_salesforce,
    write_transformers,
    write_vocabulary,
)
from tests.towers.plain_families import PlainBlip


@pytest.fixture(scope="module")
def model():
    return make_blip()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return write_transformers(tmp_path_factory.mktemp("blip") / "small", model)


@pytest.fixture
def small_names(monkeypatch, folder):
    """`blip-base` as small as the model: its own numbers are those of the configuration that it is tested with."""
    config = json.loads((folder / "config.json").read_text())
    monkeypatch.setattr(configs, "named_config", lambda name: blip_config.blip_config(config, name))


def pixels(B, H, W):
    return torch.randn(B, 3, H, W, generator=torch.Generator().manual_seed(H))


def tokens():
    ids = torch.randint(4, len(WORDS), (4, 12), generator=torch.Generator().manual_seed(0))
    for row, length in enumerate((2, 5, 11, 12)):
        ids[row, length:] = 0
    return ids


def error(found, exact):
    return float((found.double() - exact).norm() / exact.norm())


def test_embeddings_are_those_of_transformers(folder, model):
    ours = gem_fast.load(str(folder))
    images, texts = embeddings(model, pixels(2, 48, 48), tokens())
    assert error(ours.features(pixels(2, 48, 48), original=True).original_class, images) < 1e-5
    assert error(embed_tokens(ours.text.tower, tokens()), texts) < 1e-5


@pytest.mark.parametrize(("H", "W"), [(64, 40), (24, 96)])
def test_other_sizes_resample_positions_as_blip_does(folder, model, H, W):
    images, _ = embeddings(model, pixels(1, H, W), tokens(), interpolate=True)
    found = gem_fast.load(str(folder)).features(pixels(1, H, W), original=True).original_class
    assert error(found, images) < 1e-5


@pytest.mark.parametrize("method", list(gem_fast.methods()))
@pytest.mark.parametrize(("B", "H", "W"), [(2, 48, 48), (1, 40, 72)], ids=["square", "wide"])
def test_methods_agree_with_their_equations_in_float64(folder, model, method, B, H, W):
    exact = PlainBlip(copy.deepcopy(model).double(), pixels(B, H, W).double()).features(method)
    patches = gem_fast.load(str(folder), method=method).features(pixels(B, H, W))
    assert error(patches.flatten(1, 2), exact) < 5e-6


def test_images_are_squashed_to_the_size_of_training(folder, picture):
    model = gem_fast.load(str(folder))
    assert (model.defaults.size, model.usual_resize) == (48, "squash")
    assert model.segment(picture(30, 90), ["cat", "dog"]).scores.shape == (2, 6, 6)
    assert model.segment(picture(30, 90), ["cat", "dog"], resize="shorter").scores.shape == (2, 6, 18)


class TestSalesforce:
    @pytest.mark.parametrize("kind", ["pth", "safetensors"])
    def test_checkpoints_give_the_same_features(self, tmp_path, folder, model, small_names, kind):
        path = write_salesforce(tmp_path / f"model_base.{kind}", model)
        vocabulary = write_vocabulary(tmp_path / "words")
        found = gem_fast.load("blip-base", weights=path, tokenizer=vocabulary)
        same = gem_fast.load(str(folder))
        assert torch.equal(found.features(pixels(1, 48, 48)), same.features(pixels(1, 48, 48)))
        assert torch.equal(found.encode_text(["red cat"]), same.encode_text(["red cat"]))

    def test_scale_is_one_over_its_temperature(self, tmp_path, folder, model, small_names):
        vocabulary = write_vocabulary(tmp_path / "words")

        def scale(temperature):
            path = write_salesforce(tmp_path / "w.pth", model, temperature)
            return gem_fast.load("blip-base", weights=path, tokenizer=vocabulary).defaults.logit_scale

        assert scale(0.02) == pytest.approx(50)
        assert scale(9.0) == pytest.approx(2)  # the largest in training is 0.5
        assert gem_fast.load(str(folder)).defaults.logit_scale == pytest.approx(1 / 0.07)  # transformers keeps none
        with pytest.raises(ModelError, match="temp holds NaN"):
            scale(float("nan"))

    def test_folder_of_transformers_under_a_name(self, folder, small_names):
        assert gem_fast.load("blip-base", weights=folder).source == str(folder)

    def test_command_line(self, tmp_path, model, small_names, picture):
        picture(40, 60).save(tmp_path / "a.png")
        path = write_salesforce(tmp_path / "model_base.pth", model)
        vocabulary = write_vocabulary(tmp_path / "words")
        arguments = ["--prompt", "cat", "--prompt", "dog", "--model", "blip-base", "--weights", path]
        done = invoke(
            "segment", tmp_path / "a.png", *arguments, "--tokenizer", vocabulary.parent, "--out", tmp_path / "out"
        )
        assert done.exit_code == 0, plain(done.output)
        assert (tmp_path / "out" / "a.labels.png").exists()

    def test_real_sizes(self):
        base, large = (blip_config.blip_vision(blip_config.named_config(name)) for name in blip_config.blip_names())
        assert (base.width, base.layers, base.heads, base.patch_size, base.norm_eps) == (768, 12, 12, 16, 1e-6)
        assert (large.width, large.layers, large.heads, large.patch_size, large.grid) == (1024, 24, 16, 16, (24, 24))
        text = blip_config.blip_text(blip_config.named_config("blip-large"))
        assert (text.heads, text.vocabulary, text.norm_eps, text.context) == (12, 30524, 1e-12, 35)


class TestRefusals:
    def test_no_tokenizer(self, folder, tmp_path, model, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        write_transformers(tmp_path / "bare", model)
        (tmp_path / "bare" / "vocab.txt").unlink()
        with pytest.raises(ModelError, match=r"needs a tokenizer, that of bert-base-uncased .* as tokenizer"):
            gem_fast.load(str(tmp_path / "bare"))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda state: state.pop("vision_proj.bias"), "Missing keys: trunk.head.bias"),
            (lambda state: state.update({"colour": torch.zeros(3)}), "Unknown keys: colour"),
            (lambda state: state.update({"text_proj.weight": torch.zeros(3, 3)}), "Other shapes: text_proj.weight"),
            (lambda state: state["text_proj.weight"].fill_(float("nan")), "text_proj.weight holds NaN"),
            (lambda state: state.pop("text_proj.weight"), "holds no BLIP with a projection"),
            (lambda state: state.update({"visual_encoder.pos_embed": torch.zeros(7)}), "Other shapes"),
        ],
    )
    def test_weights_that_do_not_fit(self, tmp_path, model, small_names, change, reason):
        state = salesforce_state(model)
        change(state)
        torch.save({"model": state}, tmp_path / "w.pth")
        with pytest.raises(ModelError, match=reason):
            gem_fast.load("blip-base", weights=tmp_path / "w.pth", tokenizer=write_vocabulary(tmp_path / "words"))

    @pytest.mark.parametrize(
        ("part", "change", "reason"),
        [
            ("vision_config", {"hidden_act": "selu"}, "activation is 'selu'"),
            ("vision_config", {"hidden_size": "big"}, "sizes that are no numbers"),
            ("vision_config", {"num_hidden_layers": -1}, "sizes that are no numbers"),
            ("vision_config", {"patch_size": 10**9}, "sizes that are no numbers"),
            ("vision_config", {"num_attention_heads": 7}, "heads or a layer_norm_eps"),
            ("text_config", {"layer_norm_eps": "x"}, "heads or a layer_norm_eps"),
            ("text_config", {"pad_token_id": 999}, "padding is token 999"),
            ("text_config", {"pad_token_id": "0"}, "padding is token '0'"),
            ("text_config", {"pad_token_id": [0]}, r"padding is token \[0\]"),
        ],
    )
    def test_configs_that_cannot_be_used(self, tmp_path, folder, part, change, reason):
        config = json.loads((folder / "config.json").read_text())
        config[part] |= change
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=reason):
            gem_fast.load(str(tmp_path), tokenizer=folder)

    def test_a_clips_name_is_told_what_it_is(self, tmp_path, model):
        with pytest.raises(ModelError, match="holds BLIP: name the model blip-base or blip-large"):
            gem_fast.load("ViT-B-16", weights=write_salesforce(tmp_path / "w.pth", model))
