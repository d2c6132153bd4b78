"""Fetching the files of a model from the Hugging Face hub, or from its cache on this machine."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from ..errors import ModelError

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
_BESIDE = ("preprocessor_config.json", "tokenizer_config.json")


def fetch_folder(repository: str) -> Path:
    """The folder in the hub's cache that holds a model's configuration and weights.

    Raises:
        ModelError: it can't be fetched; the message names the file that couldn't.
    """
    config = fetch(repository, _CONFIGS)
    weights = fetch(repository, _WEIGHTS[config.name])
    if config.name == "config.json":
        for name in _BESIDE:
            with suppress(ModelError):  # CLIP's own serve without them
                fetch(repository, (name,))
    if weights.name.endswith(".index.json"):
        for part in sorted(set(json.loads(weights.read_text())["weight_map"].values())):
            fetch(repository, (str(part),))
    return config.parent


def fetch(repository: str, names: Sequence[str]) -> Path:
    """The first of the files that the repository has, from the cache if one is there.

    Raises:
        ModelError: none could be fetched.
    """
    for name in names:
        if isinstance(path := try_to_load_from_cache(repository, name), str):
            return Path(path)
    reason = "the repository does not have it"
    with _quiet_hub():
        for name in names:
            try:
                return Path(hf_hub_download(repository, name))
            except LocalEntryNotFoundError:
                reason = "there is no connection to the hub, and it is not in the cache"
                break
            except EntryNotFoundError:
                continue
            except Exception as error:  # the hub's client raises many kinds; the first line is what helps
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                break
    raise ModelError(f"{' or '.join(names)} of {repository} could not be fetched: {reason}")


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
