"""The tokenizer of a file with the cleaning of its model, as one `tokenizer.json`."""

import string
from typing import Any

from gem_fast.errors import ExportError
from gem_fast.towers.cleaning import CLEANINGS, canonicalize, whitespace
from gem_fast.towers.tokenizers import FileTokenizer

from .text_cleaning import CLEANING, FINAL_SIGMA

_PUNCTUATION = "[" + "".join(f"\\{mark}" for mark in string.punctuation) + "]"


def file_tokenizer_json(tokenizer: FileTokenizer) -> str:
    """The content of `tokenizer.json`: texts to ids `[context]`, cut off and filled up.

    Raises:
        ExportError: its texts are cleaned in a way that is not known.
    """
    from tokenizers import Tokenizer, normalizers, processors

    made = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    steps = _cleaning(tokenizer.clean_fn)
    if made.normalizer is not None:
        steps.append(made.normalizer)
    if steps:
        made.normalizer = normalizers.Sequence(steps)
    if tokenizer.dropped is not None:
        first, last = tokenizer.tokenizer.encode("").ids
        around = [(str(tokenizer.tokenizer.id_to_token(index)), index) for index in (first, 0)]
        names = [name for name, _ in around]
        made.post_processor = processors.TemplateProcessing(single=f"{names[0]} $A {names[1]}", special_tokens=around)
        assert last == tokenizer.dropped
    token, index = tokenizer.padding
    made.enable_truncation(tokenizer.context_length)
    made.enable_padding(length=tokenizer.context_length, pad_id=index, pad_token=token)
    return str(made.to_str())


def _cleaning(clean: Any) -> list[Any]:
    """The cleaning of texts as normalizers."""
    from tokenizers import Regex, normalizers

    if clean is str:
        return []
    if clean not in CLEANINGS.values():
        raise ExportError("the texts of this model are cleaned in a way that can't be exported")
    replace = normalizers.Replace
    steps: list[Any] = [replace(Regex(pattern), text) for pattern, text in CLEANING] + [normalizers.NFC()]
    if clean is canonicalize:
        steps += [replace("_", " "), replace(Regex(_PUNCTUATION), "")]
    if clean is not whitespace:
        steps += [replace(Regex(FINAL_SIGMA), "ς"), normalizers.Lowercase()]
    return [*steps, replace(Regex(r"\s+"), " "), normalizers.Strip()]
