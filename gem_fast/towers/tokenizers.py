"""Tokenizers from files: Hugging Face's `tokenizer.json`, or BERT's `vocab.txt`."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ModelError, missing_extra
from .folders import read_config

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LOCK = threading.Lock()  # truncation is a setting of a tokenizer, which threads share
_LARGEST = 256 << 20  # bytes of a file: one of 901,629 tokens takes a third of it
NAMES = ("tokenizer.json", "vocab.txt")
_PADS = ("[PAD]", "<pad>")
_SIGLIP_PADS = ("</s>",)  # of the first SigLIP, whose end of text is the token 1
_BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}


@dataclass(frozen=True)
class FileTokenizer:
    """Texts to ids `[n, context_length]`, cut and filled up to the context.

    Attributes:
        tokenizer: of the file.
        context_length: the most tokens of a text, with those that are put around it.
        padding: the token behind a text, and its id.
        clean_fn: what becomes of a text first.
        dropped: an id that becomes 0 (CLIPA takes BERT's tokenizer and drops its `[SEP]`), or None.
    """

    tokenizer: "Tokenizer"
    context_length: int
    padding: tuple[str, int]
    clean_fn: Callable[[str], str] = str
    dropped: int | None = None

    @property
    def added(self) -> int:
        """Tokens that are put around a text."""
        return int(self.tokenizer.num_special_tokens_to_add(is_pair=False))

    def _told(self) -> AbstractContextManager[None]:
        from ..tokenizer_file import told

        return told("the tokenizer can't split a text", ModelError)

    def encode(self, text: str) -> list[int]:
        """Ids of a cleaned text alone, however long it is."""
        with _LOCK, self._told():
            self.tokenizer.no_truncation()
            return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        cleaned = [self.clean_fn(text) for text in texts]
        with _LOCK, self._told():
            self.tokenizer.enable_truncation(self.context_length)
            found = self.tokenizer.encode_batch(cleaned)
        if any(len(encoding.ids) > self.context_length for encoding in found):
            raise ModelError("the tokenizer can't be used: it repeats a text after cutting it to the context")
        ids = torch.full((len(found), self.context_length), self.padding[1], dtype=torch.long, device="cpu")
        for row, encoding in zip(ids, found, strict=True):
            row[: len(encoding.ids)] = torch.tensor(encoding.ids, dtype=torch.long, device="cpu")
        return ids if self.dropped is None else ids.masked_fill(ids == self.dropped, 0)


def file_tokenizer(
    path: Path,
    context: int,
    clean: Callable[[str], str] = str,
    vocabulary: int | None = None,
    drops_sep: bool = False,
) -> FileTokenizer:
    """The tokenizer of a `tokenizer.json` or `vocab.txt`, or of a folder that has one of them.

    Args:
        path: the file or folder.
        context: the most tokens of a text.
        clean: what becomes of a text first.
        vocabulary: ids that the text tower has rows for.
        drops_sep: BERT's `[SEP]` becomes 0.

    Raises:
        ModelError: there is none, or it can't be used.
    """
    label = f"tokenizer: {path}"
    file = find_tokenizer(path) if path.is_dir() else path
    if file is None:
        raise ModelError(f"{label} has neither tokenizer.json nor vocab.txt, the files that can be read")
    if not file.is_file():
        raise ModelError(f"{label}: there is no such file")
    if file.stat().st_size > _LARGEST:
        raise ModelError(f"{label} is no tokenizer: it has more than {_LARGEST >> 20} MB")
    beside = read_config(file.with_name("tokenizer_config.json"), label)
    tokenizer = _read(file, beside, label)
    if beside.get("padding_side", "right") != "right":
        raise ModelError(f"{label} puts its padding before the texts; no text tower here was trained so")
    if vocabulary is not None and (count := tokenizer.get_vocab_size(with_added_tokens=True)) > vocabulary:
        raise ModelError(f"{label} has {count:,} tokens, and the model knows {vocabulary:,}; it is another model's")
    if (added := tokenizer.num_special_tokens_to_add(is_pair=False)) >= context:
        raise ModelError(f"{label} puts {added} tokens around each text, and the model reads {context}")
    dropped = tokenizer.token_to_id("[SEP]") if drops_sep else None
    padding = _padding(tokenizer, file, beside, label)
    tokenizer.no_padding()
    return FileTokenizer(tokenizer, context, padding, clean, dropped)


def find_tokenizer(folder: Path) -> Path | None:
    """The file of a tokenizer in a folder, if it has one."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def _read(file: Path, beside: dict[str, Any], label: str) -> "Tokenizer":
    try:
        from ..tokenizer_file import read_tokenizer

        return _word_piece(file, beside) if file.suffix == ".txt" else read_tokenizer(file)
    except ImportError as error:
        raise missing_extra("this model's tokenizer", "runtime", error) from error
    except ValueError as error:
        raise ModelError(f"{label} {error}") from error


def _word_piece(file: Path, beside: dict[str, Any]) -> "Tokenizer":
    """BERT's tokenizer of a list of tokens, one a line, with the settings beside it; ValueError as `read_tokenizer`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    try:
        words = [line.rstrip("\n") for line in file.open(encoding="utf-8")]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"can't be read: {str(error)[:100]}") from error
    vocabulary = {word: index for index, word in enumerate(words)}
    if missing := [token for token in ("[UNK]", "[SEP]", "[PAD]", "[CLS]") if token not in vocabulary]:
        raise ValueError(f"is no vocab.txt of BERT: it lacks {', '.join(missing)}")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens([token for token in _BERT.values() if token in vocabulary])
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(beside.get("tokenize_chinese_chars", True)),
        strip_accents=beside.get("strip_accents"),
        lowercase=bool(beside.get("do_lower_case", True)),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    around = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    return tokenizer


def _padding(tokenizer: "Tokenizer", file: Path, beside: dict[str, Any], label: str) -> tuple[str, int]:
    """The token that fills up texts: as it is named beside the file or in it, else by its usual names."""
    named = beside.get("pad_token") or read_config(file.with_name("special_tokens_map.json"), label).get("pad_token")
    if isinstance(named, dict):
        named = named.get("content")
    own = tokenizer.padding
    usual = _SIGLIP_PADS if tokenizer.token_to_id("<bos>") is None and tokenizer.token_to_id("</s>") == 1 else _PADS
    candidates = [named] if isinstance(named, str) else [own["pad_token"]] if own else usual
    for token in candidates:
        if (index := tokenizer.token_to_id(token)) is not None:
            return token, int(index)
    raise ModelError(f"{label} does not say which token fills up texts; tokenizer_config.json beside it would")
