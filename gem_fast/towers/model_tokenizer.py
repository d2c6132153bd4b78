"""The tokenizer of a model: CLIP's own, whose merges open_clip brings, or the files of another."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, shown
from .blip_config import BLIP, blip_text
from .cleaning import CLEANINGS
from .folders import named_folders

if TYPE_CHECKING:
    from .clip_tokenizer import ClipTokenizer
    from .tokenizers import FileTokenizer

_CLEANING = ("clean", "strip_sep_token")
_BLIP_WORDS = "bert-base-uncased"


def tokenizer_of(
    name: str, model_cfg: dict[str, Any], given: Path | None = None, places: tuple[Path, ...] = ()
) -> "ClipTokenizer | FileTokenizer":
    """Texts to token ids `[n, context]`, with the context of the model.

    Args:
        name: of the model, for messages.
        model_cfg: open_clip's, or BLIP's.
        given: a file or folder that the caller names.
        places: folders to look into where none is given.

    Raises:
        ModelError: it is not at hand, or can't be used; the message says where it comes from.
    """
    from .tokenizers import file_tokenizer

    if BLIP in model_cfg:
        text = blip_text(model_cfg)
        path = given or _find(name, _BLIP_WORDS, places)
        return file_tokenizer(path, text.context, vocabulary=text.vocabulary)
    text_cfg = model_cfg.get("text_cfg") or {}
    words, context = text_cfg.get("hf_tokenizer_name"), text_cfg.get("context_length", 77)
    clean, strips = _cleaning(name, text_cfg)
    if words:
        vocabulary = None if text_cfg.get("hf_model_name") else text_cfg.get("vocab_size", 49408)
        found = given or _find(name, str(words), places)
        return file_tokenizer(found, context, CLEANINGS[clean], vocabulary, strips)
    if given is not None:
        raise ModelError(f"{name} has CLIP's own tokenizer, which open_clip brings; leave out tokenizer")
    if context < 2:
        raise ModelError(f"{name}: its texts have a context_length of {context}; CLIP's tokenizer needs 2")
    from .clip_tokenizer import ClipTokenizer

    return ClipTokenizer(context, clean)


def tokenizer_source(model_cfg: dict[str, Any]) -> str | None:
    """The repository on the Hugging Face hub whose tokenizer a model has; None for CLIP's own."""
    if BLIP in model_cfg:
        return _BLIP_WORDS
    return (model_cfg.get("text_cfg") or {}).get("hf_tokenizer_name")


def _cleaning(name: str, text_cfg: dict[str, Any]) -> tuple[str, bool]:
    """How texts are cleaned, and whether BERT's `[SEP]` is dropped."""
    usual, known = ("whitespace", _CLEANING) if text_cfg.get("hf_tokenizer_name") else ("lower", _CLEANING[:1])
    settings = text_cfg.get("tokenizer_kwargs") or {}
    if not isinstance(settings, dict):
        raise ModelError(f"{name}: its tokenizer_kwargs are no settings by name")
    if unknown := [setting for setting in settings if setting not in known]:
        told = ", ".join(unknown)[:60]
        raise ModelError(f"{name}: its tokenizer has the settings {told}, which are not known here")
    if (mode := text_cfg.get("tokenizer_mode")) not in (None, ""):
        raise ModelError(f"{name}: its tokenizer has tokenizer_mode={shown(mode)}, which is not known here")
    clean = settings.get("clean", usual)
    if not isinstance(clean, str) or clean not in CLEANINGS:
        raise ModelError(f"{name}: its tokenizer has clean={shown(clean)}, not {', '.join(CLEANINGS)}")
    return clean, bool(settings.get("strip_sep_token"))


def _find(name: str, words: str, places: tuple[Path, ...]) -> Path:
    """Beside the weights, in a folder there that the config names, or on the hub."""
    from .tokenizers import NAMES, find_tokenizer

    for place in named_folders(words, places):
        if found := find_tokenizer(place):
            return found
    from .hub import fetch, fetch_if_there

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
