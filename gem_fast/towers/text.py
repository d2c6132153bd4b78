"""Words to text embeddings: encoded once, in chunks, and cached."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import ModelError
from ..word_encoder import WordEncoder
from ..writing import write_whole
from .bert import BertText
from .layer import hash_weights
from .text_tower import TextTower

_TOKENS = 2048  # a pass, which take a ViT-B's text tower 50 MB; more are no faster
_TEXTS = 64  # of short words and templates, in what is split into tokens at a time


class TextEncoder(WordEncoder[Tensor]):
    """Unit text embeddings of words under templates, computed by the model's tower, kept in memory and on disk."""

    def __init__(
        self,
        tower: nn.Module,
        tokenizer: Any,
        *,
        known_tokens: Tensor | None = None,
        cache: str | Path | None = None,
    ) -> None:
        super().__init__(None if known_tokens is None else frozenset(known_tokens.tolist()), tokenizer.context_length)
        self.tower = tower
        self.tokenizer = tokenizer
        self.disk = None if cache is None else DiskCache(Path(cache), tower)

    def compute(self, words: list[str], templates: tuple[str, ...]) -> list[Tensor]:
        """Embeddings of the words, each from the disk if it is there."""
        stored = self.disk.read(templates) if self.disk else {}
        missing = [word for word in words if word not in stored]
        if missing:
            with torch._C._DisableAutocast():  # they are kept for calls without it too
                stored |= dict(zip(missing, self.averaged(missing, templates).cpu(), strict=True))
            if self.disk:
                self.disk.write(templates, stored)
        return [stored[word] for word in words]

    def stack(self, rows: list[Tensor]) -> Tensor:
        """On the tower's device."""
        return torch.stack(rows).to(next(self.tower.parameters()).device)

    def token_ids(self, words: list[str]) -> list[list[int]]:
        return self.tokenizer(words).tolist()

    def token_count(self, text: str) -> int:
        return len(self.tokenizer.encode(self.tokenizer.clean_fn(text))) + getattr(self.tokenizer, "added", 2)

    def _check(self, tokens: Tensor) -> None:
        """Raise ModelError for ids that the tower has no rows for: on a GPU they would take the device down."""
        known = self.tower.config.vocabulary if isinstance(self.tower, TextTower | BertText) else None
        if known is not None and tokens.numel() and (largest := int(tokens.max())) >= known:
            raise ModelError(f"the tokenizer gives the token {largest}, and the model knows {known:,}; it is another's")

    @torch.inference_mode()
    def averaged(self, words: list[str], templates: tuple[str, ...]) -> Tensor:
        """Unit means over the templates, [len(words), E] float32."""
        device = next(self.tower.parameters()).device
        sums: Tensor | None = None
        # Many words go under one template at a time, whose first tokens they share.
        together = max(1, _TEXTS // len(words))
        for start in range(0, len(templates), together):
            some = templates[start : start + together]
            tokens = self.tokenizer([template.replace("{}", word) for template in some for word in words])
            self._check(tokens)
            for part in _passes(_lengths(self.tower, tokens)):
                embeddings = embed_tokens(self.tower, tokens[part].to(device))
                if sums is None:
                    sums = embeddings.new_zeros(len(words), embeddings.shape[1])
                sums.index_add_(0, (part % len(words)).to(device), embeddings)
        assert sums is not None
        return F.normalize(sums, dim=-1).float()


def _passes(lengths: Tensor) -> Iterator[Tensor]:
    """Places of the texts that go together, those of like lengths: what fills up the shorter ones is computed too."""
    order = lengths.argsort(stable=True)
    start = 0
    while start < len(order):
        most = order[start : start + max(1, _TOKENS // int(lengths[order[start]]))]
        part = most[: max(1, _TOKENS // int(lengths[most[-1]]))]
        yield part
        start += len(part)


def _lengths(tower: nn.Module, tokens: Tensor) -> Tensor:
    """How much the tower computes of each text [n, context]: all of it, or up to what fills it up."""
    n, context = tokens.shape
    if not isinstance(tower, TextTower | BertText) or reads_padding(tower):
        return torch.full((n,), context, device=tokens.device)
    return ((tokens != tokens[:, -1:]) * torch.arange(1, context + 1, device=tokens.device)).amax(1).clamp(min=1)


def embed_tokens(tower: nn.Module, tokens: Tensor) -> Tensor:
    """Unit embeddings of token ids, [n, context] -> [n, E], float32 or wider."""
    found = tower(tokens)
    found = found[0] if isinstance(found, tuple) else found  # of transformers' models
    return F.normalize(found.to(torch.promote_types(found.dtype, torch.float32)), dim=-1)


def reads_padding(tower: nn.Module) -> bool:
    """Whether what lies behind a text is part of what is computed, so that all are filled up to the context."""
    return isinstance(tower, TextTower) and tower.config.reads_padding


class DiskCache:
    """Embeddings on disk, a safetensors file for each text tower and template set."""

    def __init__(self, folder: Path, tower: nn.Module) -> None:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"the text cache {folder} is a file; it must be a folder")
        self.folder = folder
        digest = hashlib.sha256()
        digest.update(repr(tower).encode())  # the activation is no weight
        hash_weights(digest, tower)
        self.model = digest.hexdigest()

    def path(self, templates: tuple[str, ...]) -> Path:
        key = hashlib.sha256((self.model + json.dumps(templates)).encode()).hexdigest()[:32]
        return self.folder / f"text-{key}.safetensors"

    def read(self, templates: tuple[str, ...]) -> dict[str, Tensor]:
        path = self.path(templates)
        if not path.exists():
            return {}
        try:
            with safe_open(str(path), framework="pt") as stored:
                words = json.loads(stored.metadata()["words"])
                return dict(zip(words, stored.get_tensor("embeddings"), strict=True))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the text cache {path} is damaged ({error}); delete it and it is made again") from error

    def write(self, templates: tuple[str, ...], embeddings: dict[str, Tensor]) -> None:
        rows = torch.stack(list(embeddings.values()))
        write_whole(self.path(templates), save({"embeddings": rows}, metadata={"words": json.dumps(list(embeddings))}))
