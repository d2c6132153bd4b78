"""`tokenizer.json` against open_clip's own tokenizer, text by text."""

import random
import unicodedata

import ftfy
import open_clip
import pytest
from gem_fast.export.tokenizer_file import tokenizer_json

from gem_fast.errors import ExportError
from gem_fast.templates import IMAGENET
from gem_fast.towers.clip_tokenizer import ClipTokenizer

tokenizers = pytest.importorskip("tokenizers")
WORDS = ["cat", "Fire Engine", "O'Brien's", "don't", "we'll", "naïve", "Überraschung", "日本語", "кошка", "ΣΊΣΥΦΟΣ"]
PIECES = [*WORDS, "İstanbul", " ", "  ", "\t", "\n", "-", "...", "3.14", "1234567890", "½", "²", "é", "e\u0301", "🐈"]
PIECES += ["👩\u200d🚀", "!?", "@", "#1", "€5"]
ALPHABETS = [(0x20, 0x7F), (0xA1, 0x180), (0x386, 0x3CF), (0x400, 0x500), (0x5D0, 0x5EB), (0x621, 0x64B)]
ALPHABETS += [(0x905, 0x940), (0x3041, 0x3097), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0x1F300, 0x1F600)]


def random_texts(count: int) -> list[str]:
    generator = random.Random(0)
    texts = []
    for _ in range(count):
        kind = generator.randrange(3)
        if kind == 0:
            texts.append("".join(generator.choices(PIECES, k=generator.randrange(12))))
        elif kind == 1:
            alphabet = generator.choice(ALPHABETS)
            texts.append("".join(chr(generator.randrange(*alphabet)) for _ in range(generator.randrange(40))))
        else:
            texts.append(generator.choice(IMAGENET).replace("{}", generator.choice(WORDS)))
    return texts


@pytest.fixture(scope="module", params=[77, 20])
def pair(request):
    theirs = open_clip.SimpleTokenizer(context_length=request.param)
    return theirs, tokenizers.Tokenizer.from_str(tokenizer_json(ClipTokenizer(request.param)))


def ids(tokenizer, texts):
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def test_thousands_of_texts_get_the_same_tokens(pair):
    """Texts that ftfy leaves alone or changes in a way that the file knows."""
    theirs, ours = pair
    texts = [text for text in random_texts(5000) if ftfy.fix_text(text) in (text, unicodedata.normalize("NFC", text))]
    assert len(texts) > 4000
    wrong = [t for t, a, b in zip(texts, theirs(texts).tolist(), ids(ours, texts), strict=True) if a != b]
    assert not wrong


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a" * 1000,
        "a photo of a cat. " * 40,
        "tom &amp; jerry",
        "a &lt;b&gt; &quot;c&quot; d&#39;s&nbsp;e",
        "it’s a “cat”",
        "ﬁsh and ﬂower",
        "cat\x00\x07dog",
        "\ufeffcat",
        "a <start_of_text> b",
        "CAT<END_OF_TEXT>",
        "a\u00a0b\u2003c",
        "ΟΔΥΣΣΕΥΣ ΚΑΙ ΣΊΣΥΦΟΣ",
    ],
    ids=ascii,
)
def test_awkward_texts_get_the_same_tokens(pair, text):
    theirs, ours = pair
    assert ids(ours, [text]) == theirs([text]).tolist()


def test_another_tokenizer_is_refused():
    with pytest.raises(ExportError, match="not CLIP's"):
        tokenizer_json(ClipTokenizer(clean="canonicalize"))
