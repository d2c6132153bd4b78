"""Hugging Face's `tokenizer.json`, of anybody: read, and refused where it would blow up texts."""

import json
from math import prod
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers

_MOST_GROWTH = 1 << 16  # of a text by what is replaced in it first; each rule may multiply it


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a file.

    Raises:
        ValueError: it is none, or makes texts too long; the message goes on after the file's name.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises plain Exception
        raise ValueError(f"can't be read as a tokenizer: {str(error)[:200]}") from error
    rules = tokenizer.normalizer
    if rules is not None and _growth(json.loads(rules.__getstate__())) > _MOST_GROWTH:
        raise ValueError(f"can't be used as a tokenizer: it makes texts more than {_MOST_GROWTH:,} times as long")
    return tokenizer


def _growth(rule: dict[str, Any]) -> float:
    """How many times as long a text may be after a rule of a tokenizer's normaliser, or all rules of a sequence."""
    if rule["type"] == "Sequence":
        return prod(map(_growth, rule["normalizers"]))
    if rule["type"] == "Replace":
        content, pattern = rule["content"], rule["pattern"]
        if replaced := pattern.get("String"):
            return max(1.0, len(content) / len(replaced))
        return 1.0 + len(content) if len(content) > 1 or _inserts(pattern.get("Regex", ""), content) else 1.0
    return 1.0 + len(rule["prepend"]) if rule["type"] == "Prepend" else 1.0


def _inserts(expression: str, letter: str) -> bool:
    """Whether an expression, for which a letter is put, also matches where nothing is."""
    probe = "".join(map(chr, range(32, 127)))
    return len(normalizers.Replace(Regex(expression), letter).normalize_str(probe)) > len(probe)
