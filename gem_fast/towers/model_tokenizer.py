"""The tokenizer of a model: CLIP's own, which open_clip brings, or the files of another."""

from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import get_clean_fn

from ..errors import ModelError
from .blip import BLIP, blip_text
from .folders import named_folders
from .hub import fetch, fetch_if_there
from .tokenizers import NAMES, FileTokenizer, file_tokenizer, find_tokenizer

_CLEANING = ("clean", "strip_sep_token")
_BLIP_WORDS = "bert-base-uncased"


def tokenizer_of(name: str, model_cfg: dict[str, Any], given: Path | None = None, places: tuple[Path, ...] = ()) -> Any:
    """Texts to token ids `[n, context]`, with the context of the model.

    Args:
        name: of the model, for messages.
        model_cfg: open_clip's, or BLIP's.
        given: a file or folder that the caller names.
        places: folders to look into where none is given.

    Raises:
        ModelError: it is not at hand, or can't be used; the message says where it comes from.
    """
    if BLIP in model_cfg:
        text = blip_text(model_cfg)
        path = given or _find(name, _BLIP_WORDS, places)
        return file_tokenizer(path, text.context, vocabulary=text.vocabulary)
    text_cfg = model_cfg.get("text_cfg") or {}
    words, settings = text_cfg.get("hf_tokenizer_name"), dict(text_cfg.get("tokenizer_kwargs") or {})
    context = text_cfg.get("context_length", 77)
    if not words:
        if given is not None:
            raise ModelError(f"{name} has CLIP's own tokenizer, which open_clip brings; leave out tokenizer")
        return open_clip.SimpleTokenizer(context_length=context, **settings)
    return _from_files(name, given or _find(name, str(words), places), context, settings, text_cfg)


def tokenizer_source(model_cfg: dict[str, Any]) -> str | None:
    """The repository on the Hugging Face hub whose tokenizer a model has; None for CLIP's own."""
    if BLIP in model_cfg:
        return _BLIP_WORDS
    return (model_cfg.get("text_cfg") or {}).get("hf_tokenizer_name")


def _from_files(
    name: str, path: Path, context: int, settings: dict[str, Any], text_cfg: dict[str, Any]
) -> FileTokenizer:
    if unknown := [setting for setting in settings if setting not in _CLEANING]:
        raise ModelError(f"{name}: its tokenizer has the settings {', '.join(unknown)}, which are not known here")
    clean = settings.get("clean", "whitespace")
    if clean not in ("whitespace", "lower", "canonicalize"):
        raise ModelError(f"{name}: its tokenizer has clean={clean!r}, not whitespace, lower or canonicalize")
    vocabulary = None if text_cfg.get("hf_model_name") else text_cfg.get("vocab_size", 49408)
    return file_tokenizer(path, context, get_clean_fn(clean), vocabulary, bool(settings.get("strip_sep_token")))


def _find(name: str, words: str, places: tuple[Path, ...]) -> Path:
    """Beside the weights, in a folder there that the config names, or on the hub."""
    for place in named_folders(words, places):
        if found := find_tokenizer(place):
            return found
    try:
        repository, own = words, name.removeprefix("hf-hub:")
        path = fetch_if_there(own, NAMES) if own != name else None
        if path is None:
            path = fetch(words, NAMES)
        else:
            repository = own
        for beside in ("tokenizer_config.json", "special_tokens_map.json"):
            fetch_if_there(repository, (beside,))
    except ModelError as error:
        raise ModelError(
            f"{name} needs a tokenizer, that of {words} on the Hugging Face hub: give its tokenizer.json or vocab.txt, "
            f"or a folder with it, as tokenizer ({error})"
        ) from error
    return path
