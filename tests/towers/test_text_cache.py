"""Text embeddings that are kept on disk."""

import json

import pytest
import torch
from safetensors.torch import load_file

from gem_fast.templates import TEMPLATES
from gem_fast.towers.text import TextEncoder
from tests.towers.text_tower import Letters, letters, own_tower, tiny_clip

PHOTO = TEMPLATES["photo"]


class TestDiskCache:
    def encode(self, folder, words, templates=PHOTO, tower=None):
        """Rows by a new encoder on the folder, and the number of texts that it had to encode."""
        tokenizer = Letters()
        rows = TextEncoder(own_tower(tower or tiny_clip()), tokenizer, cache=folder).encode(words, templates)
        return rows, sum(map(len, tokenizer.seen))

    def test_is_used_by_the_next_encoder(self, tmp_path):
        first, encoded = self.encode(tmp_path / "new" / "cache", ["cat", "dog"])
        again, encoded_again = self.encode(tmp_path / "new" / "cache", ["dog", "cat"])
        assert (encoded, encoded_again) == (2, 0)
        assert torch.equal(again, first.flip(0))

    def test_grows(self, tmp_path):
        """A run with other words adds to what earlier runs stored."""
        self.encode(tmp_path, ["cat", "dog"])
        _, encoded = self.encode(tmp_path, ["bus"])
        _, encoded_again = self.encode(tmp_path, ["cat", "dog", "bus"])
        assert (encoded, encoded_again) == (1, 0)
        assert len(list(tmp_path.iterdir())) == 1

    def test_knows_models_and_templates_apart(self, tmp_path):
        self.encode(tmp_path, ["cat"])
        assert self.encode(tmp_path, ["cat"], tower=tiny_clip(seed=1))[1] == 1
        assert self.encode(tmp_path, ["cat"], tower=tiny_clip(quick_gelu=True))[1] == 1
        assert self.encode(tmp_path, ["cat"], templates=("the {}",))[1] == 1
        assert len(list(tmp_path.iterdir())) == 4
        assert self.encode(tmp_path, ["cat"])[1] == 0

    def test_leaves_nothing_but_readable_files(self, tmp_path):
        self.encode(tmp_path, ["cat", "dog"])
        (path,) = tmp_path.iterdir()
        assert path.suffix == ".safetensors"
        assert load_file(path)["embeddings"].shape == (2, 8)
        assert path.stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: b"",
            lambda content: content[:-5],
            lambda content: content[: len(content) // 3],
            lambda content: b"nonsense" * 20,
            lambda content: content.replace(b'"words"', b'"xords"'),
            lambda content: content.replace(b"dog", b"d\\g"),
        ],
        ids=["empty", "cut-data", "cut-header", "nonsense", "no-words", "bad-json"],
    )
    def test_a_damaged_file_is_named(self, tmp_path, damage):
        self.encode(tmp_path, ["cat", "dog"])
        (path,) = tmp_path.iterdir()
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ValueError, match=rf"{path.name} is damaged.*delete it"):
            self.encode(tmp_path, ["cat"])
        assert list(tmp_path.iterdir()) == [path]

    def test_a_failure_while_writing_leaves_no_file(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.replace", full)
        with pytest.raises(OSError, match="No space"):
            self.encode(tmp_path, ["cat"])
        assert list(tmp_path.iterdir()) == []

    def test_the_folder_is_a_file(self, tmp_path):
        (tmp_path / "cache").write_text("")
        with pytest.raises(NotADirectoryError, match="cache is a file"):
            self.encode(tmp_path / "cache", ["cat"])

    def test_words_are_stored_as_they_are(self, tmp_path):
        words = ["猫", 'a "quoted" one', "back\\slash", "x" * 500]
        self.encode(tmp_path, words)
        assert self.encode(tmp_path, words)[1] == 0


def test_cache_metadata_is_json(tmp_path):
    TextEncoder(own_tower(tiny_clip()), letters, cache=tmp_path).encode(["猫"], PHOTO)
    (path,) = tmp_path.iterdir()
    header = path.read_bytes()
    size = int.from_bytes(header[:8], "little")
    assert json.loads(json.loads(header[8 : 8 + size])["__metadata__"]["words"]) == ["猫"]
