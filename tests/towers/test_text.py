"""Text embeddings: what is computed, once, and what is warned of."""

import warnings
from types import SimpleNamespace

import open_clip
import pytest
import torch
import torch.nn.functional as F

import gem_fast
from gem_fast.templates import TEMPLATES
from gem_fast.towers import text as text_module
from gem_fast.towers.clip_tokenizer import ClipTokenizer
from gem_fast.towers.text import TextEncoder, embed_tokens
from gem_fast.towers.text_config import text_config
from gem_fast.towers.text_tower import pack_text
from tests.towers.clip_files import TINY as SMALL_CLIP
from tests.towers.clip_files import make_clip
from tests.towers.text_tower import Letters, letters, own_tower, text_state, tiny_clip

PHOTO = TEMPLATES["photo"]


@pytest.fixture(scope="module")
def clip():
    return tiny_clip()


@pytest.fixture
def tower(clip):
    return own_tower(clip)


@pytest.fixture
def encoder(tower):
    """An encoder that counts: `calls` has the texts of each pass of the tower."""
    made = TextEncoder(tower, Letters())
    made.calls = made.tokenizer.seen
    return made


def error(found, exact):
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize(
    "texts",
    [["", "zy", "x"], ["abcd", "zy", "x"], ["abcdefghijklmn", "zy"], ["only"], ["same", "same"], ["ab", "abc", "abcd"]],
    ids="-".join,
)
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_embeddings_equal_open_clips(texts, quick_gelu):
    """Also where all begin alike, which is computed once, or are the same."""
    clip, tokens = tiny_clip(quick_gelu=quick_gelu), letters(texts)
    assert error(embed_tokens(own_tower(clip), tokens), clip.encode_text(tokens, normalize=True)) < 1e-6


def test_embeddings_equal_open_clips_with_its_tokenizer():
    clip = make_clip()
    prompts = ["cat", "a very long prompt " * 30, "", "remote control", "çà 猫"]
    theirs = clip.encode_text(open_clip.get_tokenizer("ViT-B-16")(prompts), normalize=True)
    own = TextEncoder(pack_text(text_state(clip), text_config(SMALL_CLIP)), ClipTokenizer())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one is cut
        assert error(own.encode(prompts, ("{}",)), theirs) < 1e-6


def test_what_changes_nothing_is_not_computed(tower):
    """Neither padding, nor what texts begin with more than once, nor tokens that no one reads in the last block."""
    rows = []
    for block in tower.blocks:
        for layer in (block.qkv, block.mlp_in):
            layer.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[:-1].numel()))
    embed_tokens(tower, letters(["abc", "abcde"]))  # 3 letters that both have, then 3 tokens each
    assert rows == [9, 9, 9, 2]


def test_mean_over_templates(encoder, clip):
    templates = ("a {}", "the {} there", "{}")
    row = encoder.encode(["cat"], templates)[0]
    single = clip.encode_text(letters(["a cat", "the cat there", "cat"]), normalize=True)
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


def test_autocast_leaves_no_trace_in_memory_or_on_disk(tower, tmp_path):
    expected = TextEncoder(tower, letters).encode(["cat", "dog"], PHOTO)
    cached = TextEncoder(tower, letters, cache=tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cached.encode(["cat", "dog"], PHOTO), expected)
    for each in (cached, TextEncoder(tower, letters, cache=tmp_path)):
        assert torch.equal(each.encode(["cat", "dog"], PHOTO), expected)


def test_texts_go_in_chunks(encoder, monkeypatch):
    words = [f"w{'x' * (i % 3)}{i}" for i in range(7)]
    whole = TextEncoder(encoder.tower, letters).encode(words, ("a {}", "{} b", "c {}"))
    single = [TextEncoder(encoder.tower, letters).encode([word], ("a {}", "{} b", "c {}"))[0] for word in words]
    torch.testing.assert_close(whole, torch.stack(single))
    monkeypatch.setattr(text_module, "_TOKENS", 24)
    passes = []
    encoder.tower.register_forward_pre_hook(lambda _, given: passes.append(given[0]))
    torch.testing.assert_close(encoder.encode(words, ("a {}", "{} b", "c {}")), whole)
    assert sum(map(len, passes)) == 21
    assert max(map(computed, passes)) <= 24
    assert 6 <= len(passes) <= 12  # of 108 tokens, and one template at a time


def computed(tokens):
    """How many tokens of texts are there up to the end of the longest."""
    return len(tokens) * int((tokens == 63).int().argmax(1).max() + 1)


def test_ten_thousand_words_take_one_vector_each(encoder, monkeypatch):
    passes = []

    def embed(tower, tokens):
        passes.append(computed(tokens))
        return F.normalize(torch.randn(len(tokens), 512), dim=-1)

    monkeypatch.setattr(text_module, "embed_tokens", embed)
    rows = encoder.encode([f"word {i}" for i in range(10_000)], PHOTO)
    assert rows.shape == (10_000, 512)
    assert max(passes) <= 2048
    assert len(passes) < 130
    storages = {row.untyped_storage().data_ptr(): row.untyped_storage().nbytes() for row in encoder.memory.values()}
    assert sum(storages.values()) == 10_000 * 512 * 4


def test_a_tower_in_bfloat16(tmp_path):
    """Its embeddings are float32 and near; a cache and a run that goes on know it from that in float32."""
    models = []
    for text_dtype in ("float32", "bf16"):
        torch.manual_seed(0)
        models.append(gem_fast.load("ViT-S-32-alt", "random", text_dtype=text_dtype, text_cache=tmp_path))
    exact, low = (model.encode_text(["cat", "a red car"]) for model in models)
    assert low.dtype == torch.float32
    assert 1e-4 < error(low, exact) < 0.02
    assert len(list(tmp_path.iterdir())) == 2
    assert models[0].identity() != models[1].identity()
    with pytest.raises(gem_fast.ModelError, match="text_dtype must be one of float32, bfloat16, float16 "):
        gem_fast.load("gem-tiny", text_dtype="int8")


def test_factors_of_branches_are_folded_in():
    """LayerScale, which few text towers have."""
    config = SMALL_CLIP | {"text_cfg": SMALL_CLIP["text_cfg"] | {"ls_init_value": 0.1, "vocab_size": 64}}
    clip, tokens = make_clip(config), letters(["ab", "abcd"])
    padded = F.pad(tokens, (0, 77 - tokens.shape[1]))
    ours = pack_text(text_state(clip), text_config(config))
    assert error(embed_tokens(ours, padded), clip.encode_text(padded, normalize=True)) < 1e-6


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_unit_embeddings_of_half_types_are_unit_in_float32(dtype):
    found = torch.randn(3, 512, generator=torch.Generator().manual_seed(0)).to(dtype)
    unit = embed_tokens(lambda tokens: found, torch.zeros(3, 4))
    assert unit.dtype == torch.float32
    torch.testing.assert_close(unit.double(), found.double() / found.double().norm(dim=-1, keepdim=True))
