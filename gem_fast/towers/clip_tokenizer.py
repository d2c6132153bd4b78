"""CLIP's own tokenizer: byte-pair encoding by the merges in open_clip's file, with the ids that open_clip gives."""

import gzip
import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from .cleaning import CLEANINGS
from .open_clip_files import open_clip_folder

START, END = "<start_of_text>", "<end_of_text>"
_FILE = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2  # the file has more lines, which CLIP was not trained with
_LAST = "</w>"  # behind the last letter of a word
_WORDS = rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d"
_ASCII_WORD = re.compile(rf"{_WORDS}|[a-z]+|[0-9]|[^\sa-z0-9]+", re.IGNORECASE | re.ASCII)


class ClipTokenizer:
    """Texts to ids `[n, context_length]`, cut and filled up with zeros.

    Attributes:
        context_length: the most tokens of a text, those of its start and end among them.
        clean_fn: what becomes of a text first.
        start, end: ids around every text.
        added: how many these are.
    """

    added = 2

    def __init__(self, context_length: int = 77, clean: str = "lower") -> None:
        self.context_length = context_length
        self.clean_fn = CLEANINGS[clean]
        self.ids, self.ranks = _vocabulary()
        self.start, self.end = self.ids[START], self.ids[END]
        self.memory = {START: [self.start], END: [self.end]}  # ids of words

    def __call__(self, texts: Sequence[str]) -> Tensor:
        found = torch.zeros(len(texts), self.context_length, dtype=torch.long, device="cpu")
        for row, text in zip(found, texts, strict=True):
            own = [self.start, *self.encode(self.clean_fn(text))][: self.context_length - 1]
            row[: len(own) + 1] = torch.tensor([*own, self.end], device="cpu")
        return found

    def encode(self, text: str) -> list[int]:
        """Ids of a cleaned text alone, however long it is."""
        return [index for word in _words(text) for index in self._of_word(word)]

    def _of_word(self, word: str) -> list[int]:
        if word not in self.memory:
            *before, last = (_letters()[byte] for byte in word.encode())
            self.memory[word] = [self.ids[part] for part in self._merged([*before, last + _LAST])]
        return self.memory[word]

    def _merged(self, parts: list[str]) -> list[str]:
        """The parts of a word after all merges, those learnt first at first."""
        while len(parts) > 1:
            pairs = [f"{left} {right}" for left, right in pairwise(parts)]
            best = min(pairs, key=lambda pair: self.ranks.get(pair, _MERGES))
            if best not in self.ranks:
                break
            merged, place = [], 0
            while place < len(parts):
                taken = 1 + (place < len(pairs) and pairs[place] == best)
                merged.append("".join(parts[place : place + taken]))
                place += taken
            parts = merged
        return parts


def _words(text: str) -> Iterable[str]:
    """The words, digits and runs of other signs of a text."""
    return _ASCII_WORD.findall(text) if text.isascii() and text.isprintable() else _any_word().findall(text)


@cache
def _any_word() -> "re.Pattern[str]":
    import regex  # which knows the properties of all letters

    found: re.Pattern[str] = regex.compile(rf"{_WORDS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE)
    return found


@cache
def _letters() -> dict[int, str]:
    """A visible letter for each byte, in the order of their ids."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + index) for index, byte in enumerate(others)}


@cache
def _vocabulary() -> tuple[dict[str, int], dict[str, int]]:
    """Ids of all tokens, and the ranks of pairs, whose parts have a space between them."""
    with gzip.open(open_clip_folder() / _FILE) as file:
        pairs = file.read().decode().split("\n")[1 : 1 + _MERGES]
    letters = list(_letters().values())
    tokens = [*letters, *(letter + _LAST for letter in letters), *(pair.replace(" ", "") for pair in pairs), START, END]
    return {token: index for index, token in enumerate(tokens)}, {pair: index for index, pair in enumerate(pairs)}
