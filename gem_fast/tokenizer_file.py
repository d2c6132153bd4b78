"""Hugging Face's `tokenizer.json`, of anybody: read, and refused where it would blow up texts."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers

from .errors import is_failure

_MOST_GROWTH = 1 << 16  # of a text by all rules before and behind the model; each may multiply it
# How many letters one becomes at most: of U+FDFA 18, a letter a byte, a space before each part or beside it.
_KNOWN = {
    "normalizers": {
        "BertNormalizer": 6, "ByteLevel": 4, "Lowercase": 2, "NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Nmt": 1,
        "Strip": 1, "StripAccents": 1,
    },
    "pretokenizers": {
        "BertPreTokenizer": 1, "ByteLevel": 5, "CharDelimiterSplit": 1, "Digits": 1, "FixedLength": 1, "Metaspace": 2,
        "Punctuation": 1, "Split": 1, "UnicodeScripts": 1, "Whitespace": 1, "WhitespaceSplit": 1,
    },
    "processors": {"BertProcessing": 1, "ByteLevel": 1, "RobertaProcessing": 1},
}  # fmt: skip


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a file.

    Raises:
        ValueError: it is none, or makes texts too long; the message goes on after the file's name.
    """
    with told("can't be read as a tokenizer"):
        tokenizer = Tokenizer.from_file(str(path))
        rules = zip(_KNOWN, (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.post_processor), strict=True)
        growth = prod(_growth(json.loads(rule.__getstate__()), kind) for kind, rule in rules if rule is not None)
    if growth > _MOST_GROWTH:
        raise ValueError(f"can't be used as a tokenizer: it makes texts more than {_MOST_GROWTH:,} times as long")
    return tokenizer


@contextmanager
def told(what: str, error: Callable[[str], Exception] = ValueError) -> Iterator[None]:
    """Raises what `tokenizers` does as an error."""
    try:
        yield
    except BaseException as reason:
        if not is_failure(reason):
            raise
        raise error(f"{what}: {str(reason)[:200]}") from reason


def _growth(rule: dict[str, Any], kind: str) -> float:
    """How many times as long a text may be after a rule, or after all rules of a sequence.

    Raises:
        ValueError: it is of an unknown type.
    """
    name = rule["type"]
    if name == "Sequence":
        return prod(_growth(each, kind) for each in rule[kind])
    if name == "Replace":
        content, replaced = rule["content"], rule["pattern"].get("String")
        if replaced:
            return max(1.0, len(content) / len(replaced))
        return max(1.0, len(content)) if _consumes(rule["pattern"].get("Regex", "")) else 1.0 + len(content)
    if name == "Prepend":
        return 1.0 + len(rule["prepend"])
    if name == "TemplateProcessing":
        return float(sum("Sequence" in piece for piece in rule["single"]))
    if name == "Precompiled":
        return _longest_of(base64.b64decode(rule["precompiled_charsmap"]))
    if name not in _KNOWN[kind]:
        raise ValueError(f"it has a rule of the unknown type {str(name)[:80]!r}")
    return float(_KNOWN[kind][name])


def _consumes(expression: str) -> bool:
    """Whether each match of an expression takes a letter: sure of those alone that look at nothing beside a match."""
    if re.search(r"\(\?|\\[bBAzZGKyYk]|[\^$]", expression):
        return False
    probe = "".join(map(chr, range(32, 127)))
    return len(normalizers.Replace(Regex(expression), "x").normalize_str(probe)) <= len(probe)


def _longest_of(charsmap: bytes) -> float:
    """Bytes of the longest text that SentencePiece's map of characters puts for one: they follow its trie."""
    trie = int.from_bytes(charsmap[:4], "little")
    return float(max(1, *map(len, charsmap[4 + trie :].split(b"\0"))))
