"""CLIP's tokenizer against open_clip's, text by text; those that ftfy repairs too."""

import random

import open_clip
import pytest
import torch

from gem_fast.templates import IMAGENET
from gem_fast.towers.cleaning import CLEANINGS
from gem_fast.towers.clip_tokenizer import ClipTokenizer

PIECES = [
    "cat",
    "Fire Engine",
    "don't",
    "we'll",
    "O'BRIEN'S",
    "naïve",
    "日本語",
    "ΣΊΣΥΦΟΣ",
    "İstanbul",
    "'ſ",
    "K",
    " ",
    "\t",
]
PIECES += [
    "\n",
    "\x00",
    "\x1b[31m",
    "\x1c",
    "\x7f",
    "\u2028",
    "\ud800",
    "-",
    "...",
    "3.14",
    "½",
    "²",
    "Ⅷ",
    "e\u0301",
    "🐈",
]
PIECES += [
    "&amp;",
    "&lt;b&gt;",
    "&amp;amp;",
    "&",
    "<",
    "<start_of_text>",
    "<END_OF_TEXT>",
    "<end_of_text",
    "’",
    "“",
    "ﬁ",
]
PIECES += ["ＦＵＬＬ", "schÃ¶n", "â€™", "_", "!!!", "#$%", "\u00a0", "\ufeff"]


def texts(count=3000):
    generator = random.Random(1)
    for _ in range(count):
        kind = generator.randrange(4)
        if kind == 0:
            yield "".join(generator.choices(PIECES, k=generator.randrange(12)))
        elif kind == 1:
            yield "".join(chr(generator.randrange(1, 127)) for _ in range(generator.randrange(40)))
        elif kind == 2:
            yield "".join(chr(generator.randrange(0x20, 0x3000)) for _ in range(generator.randrange(20)))
        else:
            yield generator.choice(IMAGENET).replace("{}", generator.choice(PIECES))


@pytest.mark.parametrize("clean", CLEANINGS)
@pytest.mark.parametrize("context", [77, 8])
def test_ids_are_open_clips(clean, context):
    ours, theirs = ClipTokenizer(context, clean), open_clip.SimpleTokenizer(context_length=context, clean=clean)
    given = [*texts(), "a" * 500, "cat " * 100, "", "ab" * 200]
    for text, own, their in zip(given, ours(given), theirs(given), strict=True):
        assert torch.equal(own, their), ascii(text)


def test_the_count_of_tokens_is_uncut():
    assert len(ClipTokenizer(8).encode("cat " * 20)) == 20
