"""Captions and prompts: templates over the nouns and their synonyms, and the token rows that they use."""

from __future__ import annotations

import random
from functools import lru_cache

import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES, SimpleTokenizer
from torch import Tensor

from .nouns import NOUNS

CONTEXT = 20
VOCABULARY = 49408
DEFAULT = "a photo of a {}."
OPENAI = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
PROMPTS = (
    "{}",
    "a {}",
    "the {}",
    "a {}.",
    "a photo of a {}",
    "an image of a {}.",
    "a picture of a {}.",
    "this is a {}.",
    "there is a {} in the scene.",
    "a drawing of a {}",
    "an icon of a {}",
    "an emoji of a {}",
    *OPENAI,
)
SINGLES = (DEFAULT, DEFAULT, DEFAULT, *PROMPTS[:12], "a {} on a plain background.", "a picture with a {} in it")
PAIRS = (
    "a {} and a {}",
    "a {} and a {}.",
    "a photo of a {} and a {}.",
    "a picture of a {} and a {}.",
    "{} and {}",
    "a {} next to a {}",
    "a {} with a {}",
    "a {}, a {}",
    "the {} and the {}",
    "a {} beside a {}.",
)
TRIPLES = (
    "a {}, a {} and a {}",
    "a {}, a {} and a {}.",
    "a photo of a {}, a {} and a {}.",
    "{}, {} and {}",
    "a {} and a {} and a {}",
    "a picture of a {}, a {} and a {}.",
    "the {}, the {} and the {}",
)

EMPTY = ("background", "plain background", "scene")

_tokenizer = SimpleTokenizer(context_length=CONTEXT)


@lru_cache(maxsize=100_000)
def _tokens(text: str) -> Tensor:
    return _tokenizer([text])[0]


def tokenize(texts: list[str]) -> Tensor:
    """Token ids [B, 20] of the standard open_clip tokenizer."""
    return torch.stack([_tokens(text) for text in texts])


def surface(noun: int, rng: random.Random) -> str:
    """The noun itself in two thirds of the cases, or one of its synonyms."""
    entry = NOUNS[noun]
    return rng.choice(entry.synonyms) if entry.synonyms and rng.random() < 0.34 else entry.name


def caption(nouns: list[int], rng: random.Random) -> str:
    """A sentence that names the objects in random order, or the background where there are none."""
    words = [surface(noun, rng) for noun in nouns] or [rng.choice(EMPTY)]
    rng.shuffle(words)
    return _fill(rng.choice((SINGLES, PAIRS, TRIPLES)[len(words) - 1]), words, rng)


def prompts(rng: random.Random) -> list[str]:
    """One prompt for each noun and, last, for an empty scene; half of them the default prompt."""
    words = [surface(noun, rng) for noun in range(len(NOUNS))] + [rng.choice(EMPTY)]
    return [_fill(DEFAULT if rng.random() < 0.5 else rng.choice(PROMPTS), [word], rng) for word in words]


def _fill(template: str, words: list[str], rng: random.Random) -> str:
    text = template.format(*words)
    if rng.random() < 0.3:
        for vowel in "aeiou":
            text = text.replace(f" a {vowel}", f" an {vowel}")
    return text


def token_rows() -> Tensor:
    """Sorted ids of every token that the vocabulary, its synonyms and all the templates use, and 0 (padding)."""
    words = [word for noun in NOUNS for word in (noun.name, *noun.synonyms)] + list(EMPTY)
    texts = [template.format(word) for template in {DEFAULT, *PROMPTS, *SINGLES} for word in words]
    texts += [template.format(*[words[0]] * 3) for template in (*PAIRS, *TRIPLES)] + ["an", "the", "and"]
    return torch.tensor(sorted({0, *_tokenizer(texts).flatten().tolist()}))
