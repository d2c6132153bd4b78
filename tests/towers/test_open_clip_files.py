"""What is read of open_clip's files, against what open_clip itself says."""

import shutil

import open_clip
import pytest

from gem_fast.towers import open_clip_files
from gem_fast.towers.open_clip_files import (
    NotDataError,
    model_config,
    model_names,
    open_clip_folder,
    pretrained_table,
    read_table,
)


def test_names_and_configs():
    assert model_names() == open_clip.list_models()
    for name in model_names():
        assert model_config(name) == open_clip.get_model_config(name)
    assert model_config("../model_configs/ViT-B-16") is None


def test_a_config_is_the_callers_own():
    model_config("ViT-B-16")["vision_cfg"]["width"] = 1
    assert model_config("ViT-B-16")["vision_cfg"]["width"] == 768


def test_tags_and_their_settings():
    """Of this version nothing has to be imported to know them."""
    table = read_table(open_clip_folder())
    assert {(name, tag) for name, tags in table.items() for tag in tags} == set(open_clip.list_pretrained())
    for name, tags in table.items():
        assert list(tags) == open_clip.list_pretrained_tags_by_model(name)
        for tag, settings in tags.items():
            assert settings == open_clip.get_pretrained_cfg(name, tag)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("if quick_gelu_tags:", "if len(quick_gelu_tags) > 1:", "changes its table in a way"),
        ("_RN101 = dict(", "_RN101 = sorted(", "no data"),
        ("_RN101 = dict(", "_RN101 = __import__('os').system('touch planted') or dict(", "no data"),
        ("def _pcfg(url='', hf_hub='', **kwargs):", "def _pcfg(url, hf_hub='', **kwargs):", "other arguments"),
        ("_PRETRAINED = {", "_WEIGHTS = {", "no table"),
    ],
)
def test_another_version_is_asked(tmp_path, monkeypatch, old, new, reason):
    """What is written otherwise is not guessed at, and never run from here."""
    monkeypatch.chdir(tmp_path)
    for name in ("constants.py", "pretrained.py"):
        shutil.copy(open_clip_folder() / name, tmp_path)
    changed = (tmp_path / "pretrained.py").read_text()
    assert old in changed
    (tmp_path / "pretrained.py").write_text(changed.replace(old, new))
    with pytest.raises(NotDataError, match=reason):
        read_table(tmp_path)
    assert not (tmp_path / "planted").exists()
    known = pretrained_table()
    monkeypatch.setattr(open_clip_files, "open_clip_folder", lambda: tmp_path)
    assert pretrained_table.__wrapped__() == known
