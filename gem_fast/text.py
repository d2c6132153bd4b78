"""Prompts to text embeddings: classes with synonyms, templates, encoded once, in chunks, and cached."""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .writing import write_whole

TEMPLATES: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of a {}.",),
    "imagenet": tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES),
}
_CHUNK = 64  # texts a pass: of full length, 77 tokens, they took a ViT-B's text tower 120 MB


@dataclass(frozen=True)
class TextClass:
    """A class as the user names it: its name, and the words that stand for it."""

    name: str
    synonyms: tuple[str, ...]


Prompts: TypeAlias = str | Sequence[str | tuple[str, ...]] | Mapping[str, Sequence[str]]


def parse_classes(prompts: Prompts) -> tuple[TextClass, ...]:
    """The classes of one image, as users name them.

    `"cat"`, `["cat", "remote control"]`, with a tuple for a class of several words as in
    `["cat", ("car", "automobile")]`, or a mapping from class names to their words.

    Raises:
        ValueError: there is no prompt, one is empty or no text, or two have the same name.
    """
    if not isinstance(prompts, Iterable):
        raise ValueError(f"prompts must be a text, a list or a mapping, got {prompts!r}")
    if isinstance(prompts, Mapping):
        named = [(name, tuple(w) if isinstance(w, list | tuple) else (w,)) for name, w in prompts.items()]
    else:
        listed = [prompts] if isinstance(prompts, str) else prompts
        tuples = [prompt if isinstance(prompt, tuple) else (prompt,) for prompt in listed]
        named = [(words[0] if words else "", words) for words in tuples]
    if not named:
        raise ValueError("prompts must name at least one class")
    for name, words in named:
        if not words or not all(isinstance(word, str) and word.strip() for word in (name, *words)):
            raise ValueError(
                "a prompt must be a text or a tuple of synonyms, none of them empty, "
                f"got { ({name: words} if isinstance(prompts, Mapping) else words)!r}"
            )
    classes = tuple(TextClass(name.strip(), tuple(dict.fromkeys(w.strip() for w in words))) for name, words in named)
    if twice := [name for name, count in Counter(c.name for c in classes).items() if count > 1]:
        raise ValueError(f"each class needs a name of its own, but these come more than once: {', '.join(twice)}")
    return classes


def read_prompt_file(path: str | os.PathLike) -> dict[str, list[str]]:
    """Classes from a text file: a class a line, its synonyms separated by commas; empty lines and `#` are passed over.

    Raises:
        ValueError: the file can't be read, or names no class.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompts file {os.fspath(path)} can't be read as UTF-8 text: {error}") from error
    classes: dict[str, list[str]] = {}
    for line in lines:
        words = [word.strip() for word in line.split(",") if word.strip()]
        if words and not line.lstrip().startswith("#"):
            classes.setdefault(words[0], []).extend(words)
    if not classes:
        raise ValueError(f"prompts file {os.fspath(path)} names no class; write a class a line, synonyms after commas")
    return classes


def parse_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """A name of `TEMPLATES`, a template, or a list of both; each template has one `{}` for the class."""
    listed = [templates] if isinstance(templates, str) else templates
    chosen = tuple(template for given in listed for template in TEMPLATES.get(given, (given,)))
    if not chosen:
        raise ValueError("templates must hold at least one template")
    for template in chosen:
        if not isinstance(template, str) or template.count("{}") != 1:
            names = ", ".join(TEMPLATES)
            raise ValueError(f"a template must hold one {{}} for the class, got {template!r}; named ones: {names}")
    return chosen


class TextEncoder:
    """Unit text embeddings of words under templates, each computed once.

    Memory holds one float32 embedding a word and template set: 20 MB for 10,000 words of a ViT-B.
    """

    def __init__(
        self,
        tower: nn.Module,
        tokenizer: Any,
        *,
        known_tokens: Tensor | None = None,
        cache: str | Path | None = None,
    ) -> None:
        self.tower = tower
        self.tokenizer = tokenizer
        self.known_tokens = None if known_tokens is None else frozenset(known_tokens.tolist())
        self.memory: dict[tuple[tuple[str, ...], str], Tensor] = {}
        self.disk = None if cache is None else DiskCache(Path(cache), tower)

    def encode(self, words: Sequence[str], templates: tuple[str, ...]) -> Tensor:
        """Mean over the templates of the unit embeddings, made unit again: [len(words), E] float32."""
        unseen = [w for w in dict.fromkeys(words) if (templates, w) not in self.memory]
        self.warn_unknown(unseen)
        stored = self.disk.read(templates) if unseen and self.disk else {}
        missing = [w for w in unseen if w not in stored]
        if missing:
            embeddings = self._embed(missing, templates)
            stored |= dict(zip(missing, embeddings.cpu(), strict=True))
            if self.disk:
                self.disk.write(templates, stored)
        self.memory.update({(templates, w): stored[w] for w in unseen})
        device = next(self.tower.parameters()).device
        return torch.stack([self.memory[templates, word] for word in words]).to(device)

    @torch.inference_mode()
    def _embed(self, words: list[str], templates: tuple[str, ...]) -> Tensor:
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

    def warn_unknown(self, words: list[str]) -> None:
        """Warn of words that a text tower with a partial vocabulary cannot read."""
        if self.known_tokens is None:
            return
        unknown = [w for w in words if not self.known_tokens.issuperset(self.tokenizer([w])[0].tolist())]
        if unknown:
            warnings.warn(
                f"this model's vocabulary does not hold: {', '.join(unknown)}; its scores for them mean nothing",
                stacklevel=4,
            )


def embed_tokens(tower: Any, tokens: Tensor) -> Tensor:
    """Unit embeddings of token ids: [n, context] -> [n, E], as open_clip's `encode_text`, but without the padding.

    CLIP's text attention is causal and only the end-of-text token (the highest id) is read, so what lies behind the
    longest text of the chunk changes nothing: short prompts cost an eighth.
    """
    end = tokens.argmax(dim=-1)
    length = int(end.max()) + 1
    x = tower.token_embedding(tokens[:, :length]) + tower.positional_embedding[:length]
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    x = tower.ln_final(x[torch.arange(len(x), device=x.device), end])
    return F.normalize(x @ tower.text_projection, dim=-1)


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
