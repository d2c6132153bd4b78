"""What the text encoders of the engine and of the torch-free runtime share. Needs no torch."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

Array = TypeVar("Array")


class WordEncoder(ABC, Generic[Array]):
    """Unit text embeddings of words under templates, each computed once, in the arrays of one library.

    Memory holds one float32 embedding a word and template set: 20 MB for 10,000 words of a ViT-B.

    Attributes:
        known_tokens: ids that the text tower has rows for, or None for all.
        memory: embeddings `[E]` by templates and word.
    """

    def __init__(self, known_tokens: frozenset[int] | None) -> None:
        self.known_tokens = known_tokens
        self.memory: dict[tuple[tuple[str, ...], str], Array] = {}

    def encode(self, words: Sequence[str], templates: tuple[str, ...]) -> Array:
        """Mean over the templates of the unit embeddings, made unit again: `[len(words), E]` float32."""
        unseen = [word for word in dict.fromkeys(words) if (templates, word) not in self.memory]
        if unseen:
            self.warn_unknown(unseen)
            rows = self.compute(unseen, templates)
            self.memory.update({(templates, word): row for word, row in zip(unseen, rows, strict=True)})
        return self.stack([self.memory[templates, word] for word in words])

    @abstractmethod
    def compute(self, words: list[str], templates: tuple[str, ...]) -> Iterable[Array]:
        """The embedding of each word, `[E]`, none of which is in memory."""

    @abstractmethod
    def stack(self, rows: list[Array]) -> Array:
        """Embeddings `[E]` as one array, `[n, E]`."""

    @abstractmethod
    def token_ids(self, words: list[str]) -> list[list[int]]:
        """Ids of each word alone."""

    def warn_unknown(self, words: list[str]) -> None:
        """Warn of words that a text tower with a partial vocabulary cannot read."""
        if self.known_tokens is None:
            return
        ids = self.token_ids(words)
        unknown = [word for word, own in zip(words, ids, strict=True) if not self.known_tokens.issuperset(own)]
        if unknown:
            warnings.warn(
                f"this model's vocabulary does not hold: {', '.join(unknown)}; its scores for them mean nothing",
                stacklevel=4,
            )
