"""OpenAI's, MetaCLIP's and DFN's weights under a name with another activation: told where the file gives it away."""

import json
import warnings

import open_clip
import pytest
import torch

from gem_fast import ModelError
from gem_fast.towers.checkpoint import read_checkpoint
from gem_fast.towers.quick_gelu import warn_of_other_activation
from gem_fast.towers.weights_file import Weights
from tests.towers.clip_files import hugging_face_state, make_clip, write_hugging_face

PLAIN, QUICK = open_clip.get_model_config("ViT-B-32"), open_clip.get_model_config("ViT-B-32-quickgelu")


def told(name, weights, config=None):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_other_activation(name, config or open_clip.get_model_config(name), weights)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("ViT-B-32.pt", "named as OpenAI's"),
        ("ViT-L-14-336px.pt", "named as OpenAI's"),
        ("b32_400m.pt", "named as MetaCLIP's"),
        ("l14_fullcc2.5b.pt", "named as MetaCLIP's"),
        ("metaclip-b32.safetensors", "says metaclip"),
        ("clip_openai.safetensors", "says openai"),
        ("DFN2B-CLIP-ViT-B-16.bin", "says DFN2B"),
        ("models--openai--clip-vit-base-patch32/snapshots/0/model.safetensors", "says openai"),
        ("models--timm--vit_base_patch32_clip_224.metaclip_400m/snapshots/0/w.bin", "says metaclip"),
    ],
)
def test_names_of_files(tmp_path, file, reason):
    weights = Weights(tmp_path / file, {})
    (message,) = told("ViT-B-32", weights)
    assert reason in message
    assert message.endswith("name the model ViT-B-32-quickgelu")
    assert told("ViT-B-32-quickgelu", weights) == []


@pytest.mark.parametrize("file", ["model.safetensors", "ViT-B-32-laion2b.pt", "epoch_32.pt", "notopenaiatall.pt"])
def test_files_that_tell_nothing(tmp_path, file):
    assert told("ViT-B-32", Weights(tmp_path / file, {})) == []


def test_what_is_inside(tmp_path):
    path = tmp_path / "w.pt"
    for weights in (
        Weights(path, {}, scripted=True),
        Weights(path, {}, settings=frozenset({"context_length"})),
        Weights(path, {"input_resolution": torch.tensor(224)}),
    ):
        (message,) = told("ViT-B-32", weights)
        assert "was probably trained with QuickGELU" in message
        assert told("ViT-B-32-quickgelu", weights) == []


@pytest.mark.parametrize(
    ("act", "name", "right"),
    [
        ("quick_gelu", "ViT-B-32", "ViT-B-32-quickgelu"),
        ("gelu", "ViT-B-32-quickgelu", "ViT-B-32"),
        ("gelu", "ViT-B-32", None),
        ("quick_gelu", "ViT-B-32-quickgelu", None),
    ],
)
def test_a_config_beside_the_file(tmp_path, act, name, right):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": {"hidden_act": act}}))
    messages = told(name, Weights(tmp_path / "model.safetensors", {}))
    assert len(messages) == (right is not None)
    assert all(message.endswith(f"name the model {right}") and f"says {act!r}" in message for message in messages)


@pytest.mark.parametrize("config", ["{", "[]", '{"model_type": "bert"}', '{"model_type": "clip", "vision_config": 3}'])
def test_configs_of_other_things_tell_nothing(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    assert told("ViT-B-32", Weights(tmp_path / "model.safetensors", {})) == []


def test_a_folder_that_says_its_activation_must_be_named_rightly(tmp_path):
    """What a folder says is certain: there is no warning but an error."""
    name = "ViT-S-32-alt"
    clip = make_clip(open_clip.get_model_config(name))
    towers = {"vision_config": {"hidden_act": "quick_gelu"}, "text_config": {"hidden_act": "quick_gelu"}}
    folder = write_hugging_face(tmp_path / "hf", hugging_face_state(clip), **towers)
    with pytest.raises(ModelError, match=r"trained with QuickGELU, as its config.* load the folder without another"):
        read_checkpoint(name, weights=folder)
    with pytest.raises(ModelError, match="name the model ViT-B-32-quickgelu, or load the folder"):
        read_checkpoint("ViT-B-32", weights=folder)
    towers = {"vision_config": {"hidden_act": "gelu"}, "text_config": {"hidden_act": "gelu"}}
    write_hugging_face(folder, hugging_face_state(clip), {"image_mean": [0.5, 0.5, 0.5]}, **towers)
    checkpoint = read_checkpoint(name, weights=folder)
    assert torch.equal(checkpoint.vision_state["conv1.weight"], clip.visual.conv1.weight)
    assert checkpoint.mean == (0.5, 0.5, 0.5)
