"""Fetching the files of a model from the Hugging Face hub, or from its cache on this machine."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from ..errors import ModelError
from .stored import UnreadableError
from .weights_file import parts_of

_CONFIGS = ("open_clip_config.json", "config.json")
_WEIGHTS = {
    "open_clip_config.json": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "config.json": (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ),
}
_BESIDE: dict[str, tuple[tuple[str, ...], ...]] = {  # the first of each; processors have a newer file
    "open_clip_config.json": (),
    "config.json": (("preprocessor_config.json", "processor_config.json"), ("tokenizer_config.json",)),
}


def fetch_folder(repository: str) -> Path:
    """The folder in the hub's cache that holds a model's configuration and weights.

    Raises:
        ModelError: it can't be fetched; the message names the file that couldn't.
    """
    config = fetch(repository, _CONFIGS)
    weights = fetch(repository, _WEIGHTS[config.name])
    if weights.name.endswith(".index.json"):
        try:
            for part in parts_of(weights):
                fetch(repository, (part,))
        except UnreadableError as error:
            raise ModelError(f"weights: {weights} {error}") from error
    for names in _BESIDE[config.name]:
        try:
            _first(repository, names)
        except ModelError as error:
            warnings.warn(f"{error}; what it would say is taken to be as CLIP's", stacklevel=2)
    return config.parent


def fetch_if_there(repository: str, names: Sequence[str]) -> Path | None:
    """As `fetch`, but None if the repository has none of them, or can't be asked."""
    try:
        return _first(repository, names)
    except ModelError:
        return None


def fetch(repository: str, names: Sequence[str]) -> Path:
    """The first of the files that the repository has, from the cache if one is there.

    Raises:
        ModelError: none could be fetched.
    """
    if path := _first(repository, names):
        return path
    raise ModelError(f"{' or '.join(names)} of {repository} could not be fetched: the repository does not have it")


def _first(repository: str, names: Sequence[str]) -> Path | None:
    """As `fetch`, but None if the repository has none of them."""
    try:
        cached = {name: try_to_load_from_cache(repository, name) for name in names}
        for path in cached.values():
            if isinstance(path, str):
                return Path(path)
        with _quiet_hub():
            for name in (name for name, path in cached.items() if path is None):  # others are known to be absent
                with suppress(EntryNotFoundError):
                    return _download(repository, name)
        return None
    except Exception as error:  # the hub's client raises many kinds; the first line is what helps
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{' or '.join(names)} of {repository} could not be fetched: {reason}") from error


def _download(repository: str, name: str) -> Path:
    try:
        return Path(hf_hub_download(repository, name))
    except LocalEntryNotFoundError as error:  # of the kind that says that a repository lacks a file
        raise ConnectionError("there is no connection to the hub, and it is not in the cache") from error


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Without the client's own lines about each retry: what failed is told once, by the error."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
