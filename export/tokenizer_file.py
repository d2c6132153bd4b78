"""CLIP's tokenizer in the format of Hugging Face's `tokenizers`, equal to its byte-pair encoding."""

from typing import Any

from gem_fast.errors import ExportError
from gem_fast.towers.cleaning import lower
from gem_fast.towers.clip_tokenizer import END, START, ClipTokenizer
from gem_fast.towers.tokenizers import FileTokenizer

from .file_tokenizer import file_tokenizer_json
from .text_cleaning import CLEANING, FINAL_SIGMA

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def padding_id(tokenizer: Any) -> int:
    """The id behind a text."""
    return tokenizer.padding[1] if isinstance(tokenizer, FileTokenizer) else 0


def around_texts(tokenizer: Any) -> tuple[int | None, int | None]:
    """The ids before and behind every text; None where there is none."""
    if not isinstance(tokenizer, FileTokenizer):
        return tokenizer.start, tokenizer.end
    first, *rest = tokenizer([""])[0].tolist()
    behind = rest[0] if rest else None
    padding = padding_id(tokenizer)
    return (first, behind) if behind not in (None, padding) else (None, first)


def unescapes(tokenizer: Any) -> bool:
    """Whether it reads entities such as `&amp;` as what they stand for; what cleans texts does, as CLIP's."""
    return not isinstance(tokenizer, FileTokenizer) or tokenizer.clean_fn is not str


def tokenizer_json(tokenizer: Any) -> str:
    """The content of `tokenizer.json` for a model's tokenizer: texts to ids `[context]`, cut off and filled up.

    Raises:
        ExportError: it is not CLIP's byte-pair encoding in its usual setting.
    """
    if isinstance(tokenizer, FileTokenizer):
        return file_tokenizer_json(tokenizer)
    if not isinstance(tokenizer, ClipTokenizer) or tokenizer.clean_fn is not lower:
        raise ExportError(f"the tokenizer {type(tokenizer).__name__} of this model is not CLIP's; it can't be exported")
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    merges = [(left, right) for left, right in (pair.split(" ") for pair in tokenizer.ranks)]
    made = Tokenizer(models.BPE(vocab=tokenizer.ids, merges=merges, end_of_word_suffix="</w>", fuse_unk=False))
    made.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(pattern), text) for pattern, text in CLEANING]
        + [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            # Greek's final sigma, which lower-casing a letter at a time does not know.
            normalizers.Replace(Regex(FINAL_SIGMA), "ς"),
            normalizers.Lowercase(),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, normalized=True, special=True) for text in (START, END)])
    made.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(START, tokenizer.start), (END, tokenizer.end)],
    )
    made.enable_truncation(tokenizer.context_length)
    made.enable_padding(length=tokenizer.context_length, pad_id=0, pad_token="!")
    return made.to_str()
