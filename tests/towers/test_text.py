"""Text embeddings: what is computed, once, and what is warned of."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gem_fast.templates import TEMPLATES
from gem_fast.towers import text as text_module
from gem_fast.towers.text import TextEncoder, embed_tokens
from tests.towers.text_tower import Letters, letters, tiny_clip

PHOTO = TEMPLATES["photo"]


@pytest.fixture
def tower():
    return tiny_clip()


@pytest.fixture
def encoder(tower):
    """An encoder that counts: `calls` has the texts of each pass of the tower."""
    made = TextEncoder(tower, Letters())
    made.calls = made.tokenizer.seen
    return made


@pytest.mark.parametrize("length", [1, 5, 15])
def test_embeddings_equal_open_clips(tower, length):
    tokens = letters(["abcdefghijklmno"[: length - 1], "zy", "x"])
    ours = embed_tokens(tower, tokens)
    torch.testing.assert_close(ours, tower.encode_text(tokens, normalize=True), rtol=1e-5, atol=1e-6)


def test_embeddings_equal_open_clips_with_its_tokenizer(small_model):
    prompts = ["cat", "a very long prompt " * 30, "", "remote control", "çà 猫"]
    tokens = small_model.text.tokenizer(prompts)
    theirs = small_model.text.tower.encode_text(tokens, normalize=True)
    torch.testing.assert_close(embed_tokens(small_model.text.tower, tokens), theirs, rtol=1e-5, atol=1e-6)


def test_padding_is_not_computed(tower):
    lengths = []
    tower.transformer.register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[1]))
    embed_tokens(tower, letters(["ab", "abcd"]))
    assert lengths == [5]


def test_mean_over_templates(encoder, tower):
    templates = ("a {}", "the {} there", "{}")
    row = encoder.encode(["cat"], templates)[0]
    single = tower.encode_text(letters(["a cat", "the cat there", "cat"]), normalize=True)
    torch.testing.assert_close(row, F.normalize(single.mean(0), dim=0), rtol=1e-5, atol=1e-6)
    assert row.dtype == torch.float32


def test_rows_keep_the_order_of_the_words(encoder):
    words = ["cat", "dog", "bus", "cat"]
    rows = encoder.encode(words, PHOTO)
    assert rows.shape == (4, 8)
    for word, row in zip(words, rows, strict=True):
        torch.testing.assert_close(row, TextEncoder(encoder.tower, letters).encode([word], PHOTO)[0])


def test_each_text_is_encoded_once(encoder):
    encoder.encode(["cat", "dog", "cat"], PHOTO)
    encoder.encode(["dog", "cat"], PHOTO)
    encoder.encode(["dog", "bus"], PHOTO)
    assert [len(texts) for texts in encoder.calls] == [2, 1]
    encoder.encode(["dog"], ("a {}", "the {}"))
    assert [len(texts) for texts in encoder.calls] == [2, 1, 2]


def test_texts_go_in_chunks(encoder, monkeypatch):
    words = [f"w{i}" for i in range(7)]
    whole = TextEncoder(encoder.tower, letters).encode(words, ("a {}", "{} b", "c {}"))
    monkeypatch.setattr(text_module, "_CHUNK", 4)  # chunks end inside a word's templates
    torch.testing.assert_close(encoder.encode(words, ("a {}", "{} b", "c {}")), whole)
    assert [len(texts) for texts in encoder.calls] == [4, 4, 4, 4, 4, 1]


def test_ten_thousand_words_take_one_vector_each(encoder, monkeypatch):
    passes = []

    def embed(tower, tokens):
        passes.append(len(tokens))
        return F.normalize(torch.randn(len(tokens), 512), dim=-1)

    monkeypatch.setattr(text_module, "embed_tokens", embed)
    rows = encoder.encode([f"word {i}" for i in range(10_000)], PHOTO)
    assert rows.shape == (10_000, 512)
    assert max(passes) <= 64
    storages = {row.untyped_storage().data_ptr(): row.untyped_storage().nbytes() for row in encoder.memory.values()}
    assert sum(storages.values()) == 10_000 * 512 * 4


def test_synonyms_of_a_class_are_next_to_each_other(small_model):
    rows = small_model.encode_text(["cat", ("car", "automobile"), "dog"])
    assert rows.shape[0] == 4
    torch.testing.assert_close(rows[[1, 2]], small_model.encode_text({"car": ["car", "automobile"]}))
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(4))


class TestUnknownWords:
    def known(self, tower, text="a photo of a cat.", **arguments):
        return TextEncoder(tower, letters, known_tokens=letters([text]).unique(), **arguments)

    def test_are_warned_of_by_name(self, tower):
        with pytest.warns(UserWarning, match=r"does not hold: zebra, quiz; ") as caught:
            self.known(tower).encode(["cat", "zebra", "quiz"], PHOTO)
        assert len(caught) == 1

    def test_known_ones_are_not(self, tower, recwarn):
        self.known(tower).encode(["cat", "tac"], PHOTO)
        TextEncoder(tower, letters).encode(["zebra"], PHOTO)
        assert not recwarn.list

    def test_are_warned_of_when_the_disk_has_them(self, tower, tmp_path):
        for _ in range(2):
            with pytest.warns(UserWarning, match="zebra"):
                self.known(tower, cache=tmp_path).encode(["zebra"], PHOTO)


def test_rows_lie_on_the_towers_device(tower):
    meta = SimpleNamespace(parameters=lambda: iter([torch.empty(1, device="meta")]))
    encoder = TextEncoder(tower, letters)
    encoder.encode(["cat"], PHOTO)
    encoder.tower = meta
    assert encoder.encode(["cat"], PHOTO).device.type == "meta"
