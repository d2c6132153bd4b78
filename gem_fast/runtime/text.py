"""Words to text embeddings with the exported text encoder: each computed once, kept in memory."""

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import ExportError
from ..tokenizer_file import read_tokenizer, told
from ..word_encoder import WordEncoder
from .facts import TextFacts
from .graph import Graph

_CHUNK = 64  # texts in a run


class TextTokenizer:
    """Token ids from a file of Hugging Face `tokenizers`."""

    def __init__(self, path: Path, facts: TextFacts) -> None:
        try:
            self.tokenizer = read_tokenizer(path)
        except ValueError as error:
            raise ExportError(f"{path} {error}") from error
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.path, self.context, self.unescaped = path, facts.context_length, facts.unescaped
        if (added := self.tokenizer.num_special_tokens_to_add(is_pair=False)) > self.context:
            raise ExportError(f"{path} puts {added} tokens around each text, and the model reads {self.context}")
        self.ended = len(self.uncut([""])[0]) > 0

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text with the start and the end of text, which stays where a text is cut to the context."""
        every, end = self.uncut(texts), int(self.ended)
        return [ids if len(ids) <= self.context else ids[: self.context - end] + ids[len(ids) - end :] for ids in every]

    def uncut(self, texts: Sequence[str]) -> list[list[int]]:
        """The same, however long they are."""
        # The file can't hold what CLIP's tokenizer does first: entities, twice since some are escaped themselves.
        clean = [html.unescape(html.unescape(text)) for text in texts] if self.unescaped else list(texts)
        with told(f"{self.path} can't split a text", ExportError):
            return [encoding.ids for encoding in self.tokenizer.encode_batch(clean)]


class TextEncoder(WordEncoder[np.ndarray]):
    """Unit text embeddings of words under templates, computed by the exported graph and kept in memory."""

    def __init__(self, graph: Graph, tokenizer: TextTokenizer, facts: TextFacts) -> None:
        known = None if facts.known_tokens is None else frozenset(facts.known_tokens)
        super().__init__(known, facts.context_length)
        self.graph = graph
        self.tokenizer = tokenizer
        self.facts = facts

    def compute(self, words: list[str], templates: tuple[str, ...]) -> np.ndarray:
        texts = [template.replace("{}", word) for word in words for template in templates]
        parts = [self.run(texts[start : start + _CHUNK]) for start in range(0, len(texts), _CHUNK)]
        sums = np.concatenate(parts).reshape(len(words), len(templates), -1).sum(axis=1)
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)

    def stack(self, rows: list[np.ndarray]) -> np.ndarray:
        return np.stack(rows)

    def token_ids(self, words: list[str]) -> list[list[int]]:
        return self.tokenizer(words)

    def token_count(self, text: str) -> int:
        return len(self.tokenizer.uncut([text])[0])

    def run(self, texts: Sequence[str]) -> np.ndarray:
        """Unit embeddings of texts, [n, E]; what lies behind the longest is computed only where it is read."""
        every = self.tokenizer(texts)
        length = self.context if self.facts.filled else max(1, *map(len, every))
        ids = np.full((len(every), length), self.facts.padding_token, np.int64)
        for row, own in zip(ids, every, strict=True):
            row[: len(own)] = own
        return self.graph.run({"token_ids": ids}, "text_embeddings")[0].numpy()
