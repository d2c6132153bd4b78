"""Words to text embeddings with the exported text encoder: each computed once, kept in memory."""

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ..errors import ExportError
from ..word_encoder import WordEncoder
from .graph import Graph

_CHUNK = 64  # texts in a run


class TextTokenizer:
    """CLIP's token ids from a file of Hugging Face `tokenizers`."""

    def __init__(self, path: Path, context: int) -> None:
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # `tokenizers` raises plain Exception
            raise ExportError(f"{path} can't be read as a tokenizer: {error}") from error
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.context = context

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text with the start and the end of text, cut to the context as CLIP's own tokenizer does."""
        every = self.uncut(texts)
        return [ids if len(ids) <= self.context else [*ids[: self.context - 1], ids[-1]] for ids in every]

    def uncut(self, texts: Sequence[str]) -> list[list[int]]:
        """The same, however long they are."""
        # The file can't hold what CLIP's tokenizer does first: entities, twice since some are escaped themselves.
        clean = [html.unescape(html.unescape(text)) for text in texts]
        return [encoding.ids for encoding in self.tokenizer.encode_batch(clean)]


class TextEncoder(WordEncoder[np.ndarray]):
    """Unit text embeddings of words under templates, computed by the exported graph and kept in memory."""

    def __init__(self, graph: Graph, tokenizer: TextTokenizer, known_tokens: frozenset[int] | None) -> None:
        super().__init__(known_tokens, tokenizer.context)
        self.graph = graph
        self.tokenizer = tokenizer

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
        """Unit embeddings of texts, [n, E]; what lies behind the longest of them is not computed."""
        every = self.tokenizer(texts)
        ids = np.zeros((len(every), max(map(len, every))), np.int64)
        for row, own in zip(ids, every, strict=True):
            row[: len(own)] = own
        return self.graph.run({"token_ids": ids}, "text_embeddings")[0].numpy()
