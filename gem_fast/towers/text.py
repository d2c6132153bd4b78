"""Words to text embeddings: encoded once, in chunks, and cached."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..word_encoder import WordEncoder
from ..writing import write_whole

_CHUNK = 64  # texts a pass: of full length, 77 tokens, they took a ViT-B's text tower 120 MB


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

    @torch.inference_mode()
    def averaged(self, words: list[str], templates: tuple[str, ...]) -> Tensor:
        """Unit means over the templates, [len(words), E] float32."""
        device = next(self.tower.parameters()).device
        count = len(words) * len(templates)
        sums = None
        for start in range(0, count, _CHUNK):
            places = range(start, min(start + _CHUNK, count))
            texts = [templates[i % len(templates)].replace("{}", words[i // len(templates)]) for i in places]
            embeddings = embed_tokens(self.tower, self.tokenizer(texts).to(device))
            if sums is None:
                sums = embeddings.new_zeros(len(words), embeddings.shape[1])
            owner = torch.tensor([i // len(templates) for i in places], device=device)
            sums.index_add_(0, owner, embeddings)
        assert sums is not None
        return F.normalize(sums, dim=-1).float()


def embed_tokens(tower: Any, tokens: Tensor) -> Tensor:
    """Unit embeddings of token ids: [n, context] -> [n, E], as open_clip's `encode_text`, but without the padding.

    Where text attention is causal, what lies behind the longest text of the chunk changes nothing: short prompts cost
    an eighth. A tower that is none of open_clip's own, or CoCa's, embeds its tokens itself.
    """
    if not hasattr(tower, "token_embedding") or has_class_token(tower):
        found = tower(tokens)
        return F.normalize(found[0] if isinstance(found, tuple) else found, dim=-1)
    end = end_of_text(tower, tokens)
    mask = tower.attn_mask
    length = int(end.max()) + 1 if mask is not None else tokens.shape[1]
    x = tower.token_embedding(tokens[:, :length]) + tower.positional_embedding[:length]
    x = tower.transformer(x, attn_mask=None if mask is None else mask[:length, :length])
    x = tower.ln_final(x[torch.arange(len(x), device=x.device), end])
    projection = tower.text_projection
    if projection is not None:
        x = projection(x) if isinstance(projection, nn.Module) else x @ projection
    return F.normalize(x, dim=-1)


def pool_of(tower: Any) -> str:
    """Which token of open_clip's text tower is read: `argmax`, `last`, `first` or `eos`."""
    return str(getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", "argmax"))


def end_of_text(tower: Any, tokens: Tensor) -> Tensor:
    """Places [n] of the tokens that are read, of ids [n, context]."""
    pool = pool_of(tower)
    if pool == "first":
        return torch.zeros_like(tokens[:, 0])
    if pool == "last":
        return torch.full_like(tokens[:, 0], tokens.shape[1] - 1)
    if pool == "eos":
        return (tokens == eos_of(tower)).int().argmax(dim=-1)
    return tokens.argmax(dim=-1)


def eos_of(tower: Any) -> int:
    """The id of the end of text, where the tower looks for it."""
    eos: Any = getattr(tower, "text_eos_id", None) or getattr(tower, "eos_id", 2)
    return int(eos)


def has_class_token(tower: Any) -> bool:
    """Whether a token of its own behind the texts is read (CoCa)."""
    return getattr(tower, "cls_emb", None) is not None


def sees_padding(tower: Any) -> bool:
    """Whether a text's embedding depends on what lies behind it, so that all are filled up to the context."""
    return hasattr(tower, "token_embedding") and (tower.attn_mask is None or has_class_token(tower))


class DiskCache:
    """Embeddings on disk, a safetensors file for each text tower and template set."""

    def __init__(self, folder: Path, tower: nn.Module) -> None:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"the text cache {folder} is a file; it must be a folder")
        self.folder = folder
        digest = hashlib.sha256()
        digest.update(repr(tower).encode())  # the activation is no weight
        for name, value in sorted(tower.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
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
