"""Prompts: what may be written, what is computed once, and what is kept on disk."""

import json
from types import SimpleNamespace

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from gem_fast import text as text_module
from gem_fast.prompts import parse_classes, parse_templates
from gem_fast.templates import TEMPLATES
from gem_fast.text import TextEncoder, embed_tokens

PHOTO = TEMPLATES["photo"]
TINY = {"context_length": 16, "vocab_size": 64, "width": 64, "heads": 1, "layers": 2}


def tiny_clip(seed=0, quick_gelu=False):
    """A text tower of two layers, with weights large enough that every part of it shows in the result."""
    torch.manual_seed(seed)
    clip = open_clip.CLIP(8, {"image_size": 8, "layers": 1, "width": 64, "patch_size": 8}, TINY, quick_gelu=quick_gelu)
    for parameter in clip.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    del clip.visual
    return clip.requires_grad_(False).eval()


def letters(texts):
    """A tokenizer: a token a letter, 63 as end of text, padded with 0."""
    rows = [[ord(letter) % 60 + 1 for letter in text[-14:]] + [63] for text in texts]
    return torch.tensor([row + [0] * (16 - len(row)) for row in rows])


@pytest.fixture
def tower():
    return tiny_clip()


@pytest.fixture
def encoder(tower):
    """An encoder that counts: `calls` has the number of texts of each pass of the tower."""
    calls = []

    def counting(texts):
        calls.append(len(texts))
        return letters(texts)

    made = TextEncoder(tower, counting)
    made.calls = calls
    return made


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ("cat", {"cat": ("cat",)}),
        (["cat", "remote control"], {"cat": ("cat",), "remote control": ("remote control",)}),
        (("cat", "dog"), {"cat": ("cat",), "dog": ("dog",)}),
        (["cat", ("car", "automobile")], {"cat": ("cat",), "car": ("car", "automobile")}),
        ({"vehicle": ["car", "bus"], "cat": "kitten"}, {"vehicle": ("car", "bus"), "cat": ("kitten",)}),
        ({"vehicle": ("car", "bus")}, {"vehicle": ("car", "bus")}),
        ([" cat "], {"cat": ("cat",)}),
        ([("car", "car", " car ", "auto")], {"car": ("car", "auto")}),
        (["background"], {"background": ("background",)}),
        ((name for name in ("a", "b")), {"a": ("a",), "b": ("b",)}),
        (["猫"], {"猫": ("猫",)}),
    ],
    ids=[
        "text",
        "list",
        "tuple",
        "synonyms",
        "mapping",
        "mapping-tuple",
        "blanks",
        "repeated-synonym",
        "background",
        "generator",
        "non-latin",
    ],
)
def test_classes(prompts, expected):
    assert {c.name: c.synonyms for c in parse_classes(prompts)} == expected


@pytest.mark.parametrize(
    ("prompts", "reason"),
    [
        ([], "at least one class"),
        ({}, "at least one class"),
        ("", r"none of them empty, got \(''"),
        ([" "], "none of them empty"),
        (["cat", ""], "none of them empty"),
        ([("cat", "")], r"\('cat', ''\)"),
        ([()], "none of them empty"),
        (["cat", ["car", "automobile"]], "tuple of synonyms"),
        (["cat", 7], "7"),
        ([None], "None"),
        (None, "None"),
        (7, "a text, a list or a mapping, got 7"),
        ({"cat": []}, "'cat'"),
        ({"cat": 7}, "'cat': .7"),
        ({7: "cat"}, "7"),
        ({"": "cat"}, "'': "),
        (["cat", "dog", " cat"], "more than once: cat"),
    ],
    ids=str,
)
def test_unusable_prompts_are_named(prompts, reason):
    with pytest.raises(ValueError, match=reason):
        parse_classes(prompts)


def test_templates():
    assert parse_templates("photo") == ("a photo of a {}.",)
    assert len(parse_templates("imagenet")) == len(set(parse_templates("imagenet"))) == 80
    assert parse_templates("a {} here") == ("a {} here",)
    assert parse_templates(["a {}", "the {}"]) == ("a {}", "the {}")
    assert parse_templates(["photo", "the {}"]) == ("a photo of a {}.", "the {}")
    assert all("{}" in template for template in parse_templates("imagenet"))


@pytest.mark.parametrize("templates", ["a photo", "{} and {}", "", "fotos", ["a {}", "b"], ["{0}"], [7]], ids=str)
def test_unusable_templates_name_the_named_ones(templates):
    with pytest.raises(ValueError, match=r"one \{\} for the class, got .*photo, imagenet"):
        parse_templates(templates)


def test_no_template():
    with pytest.raises(ValueError, match="at least one template"):
        parse_templates([])


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
    assert encoder.calls == [2, 1]
    encoder.encode(["dog"], ("a {}", "the {}"))
    assert encoder.calls == [2, 1, 2]


def test_texts_go_in_chunks(encoder, monkeypatch):
    words = [f"w{i}" for i in range(7)]
    whole = TextEncoder(encoder.tower, letters).encode(words, ("a {}", "{} b", "c {}"))
    monkeypatch.setattr(text_module, "_CHUNK", 4)  # chunks end inside a word's templates
    torch.testing.assert_close(encoder.encode(words, ("a {}", "{} b", "c {}")), whole)
    assert encoder.calls == [4, 4, 4, 4, 4, 1]


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


class TestDiskCache:
    def encode(self, folder, words, templates=PHOTO, tower=None):
        """Rows by a new encoder on the folder, and the number of texts that it had to encode."""
        texts = []

        def counting(batch):
            texts.extend(batch)
            return letters(batch)

        rows = TextEncoder(tower or tiny_clip(), counting, cache=folder).encode(words, templates)
        return rows, len(texts)

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


def test_cache_metadata_is_json(tmp_path):
    TextEncoder(tiny_clip(), letters, cache=tmp_path).encode(["猫"], PHOTO)
    (path,) = tmp_path.iterdir()
    header = path.read_bytes()
    size = int.from_bytes(header[:8], "little")
    assert json.loads(json.loads(header[8 : 8 + size])["__metadata__"]["words"]) == ["猫"]


def test_imagenet_templates_are_those_of_open_clip():
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    assert TEMPLATES["imagenet"] == tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
