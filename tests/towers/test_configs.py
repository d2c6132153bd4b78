"""The configuration of a model by name, without its weights."""

import subprocess
import sys

import open_clip
import pytest

from gem_fast.towers.configs import embedded_folder, find_config, pretrained_tags, supported_models
from gem_fast.towers.open_clip_files import model_config, pretrained_table
from gem_fast.towers.sources import pretrained_weights, usual_images


def test_open_clips_and_the_embedded_ones():
    assert find_config("ViT-B-16").model_cfg == open_clip.get_model_config("ViT-B-16")
    assert (find_config("ViT-B-16").options, find_config("ViT-B-16").preprocess) == ({}, {})
    tiny = find_config("gem-tiny")
    assert (tiny.model_cfg["embed_dim"], tiny.options["gem_blocks"], tiny.defaults["size"]) == (128, 7, 96)
    assert tiny.preprocess["std"] == [0.25, 0.25, 0.25]
    assert (embedded_folder("gem-tiny") / "model.safetensors").is_file()
    assert find_config("no-such") is None


def test_the_embedded_one_needs_no_torch():
    code = """
import sys
from gem_fast.towers.configs import find_config
assert find_config("gem-tiny").options
print([name for name in ("torch", "open_clip") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["PE-Core-B-16", "ViT-B-16-SigLIP", "ViT-B-16-SigLIP2-512", "ViT-B-32", "EVA02-B-16"])
def test_images_of_a_file_under_a_plain_name_are_as_its_tags_have_them(name):
    images, tags = usual_images(model_config(name)), pretrained_table()[name].values()
    usual = {(tuple(tag["mean"]), tuple(tag["std"]), tag["interpolation"]) for tag in tags}
    assert usual == {(images.mean, images.std, images.interpolation)}


def test_the_activation_of_every_tag_is_open_clips_own_or_what_the_tag_says(monkeypatch, tmp_path):
    """open_clip keeps that of the name, and warns where the tag says QuickGELU: there it is the tag's."""
    monkeypatch.setattr("gem_fast.towers.sources._download", lambda settings: tmp_path)
    pairs = [(name, tag) for name in supported_models() for tag in pretrained_tags(name)]
    used = {pair: pretrained_weights(pair[0], model_config(pair[0]), pair[1]).model_cfg["quick_gelu"] for pair in pairs}
    configs = {pair: open_clip.get_model_config(pair[0]).get("quick_gelu", False) for pair in pairs}
    tags = {pair: open_clip.get_pretrained_cfg(*pair).get("quick_gelu", False) for pair in pairs}
    assert used == {pair: configs[pair] or tags[pair] for pair in pairs}
    assert used["roberta-ViT-B-32", "laion2b_s12b_b32k"] is True
    assert used["ViT-B-16", "openai"] is True
    assert used["ViT-B-16", "laion2b_s34b_b88k"] is False
