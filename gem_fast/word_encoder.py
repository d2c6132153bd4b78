"""What the text encoders of the engine and of the torch-free runtime share. Needs no torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from .errors import warn_caller

Array = TypeVar("Array")
_MOST_NAMED = 10  # words in a warning


class WordEncoder(ABC, Generic[Array]):
    """Unit text embeddings of words under templates, each computed once, in the arrays of one library.

    Memory holds one float32 embedding a word and template set: 20 MB for 10,000 words of a ViT-B.

    Attributes:
        known_tokens: ids that the text tower has rows for, or None for all.
        context: the most tokens of a text, those of its start and end among them.
        memory: embeddings `[E]` by templates and word.
    """

    def __init__(self, known_tokens: frozenset[int] | None, context: int) -> None:
        self.known_tokens = known_tokens
        self.context = context
        self.memory: dict[tuple[tuple[str, ...], str], Array] = {}

    def encode(self, words: Sequence[str], templates: tuple[str, ...]) -> Array:
        """Mean over the templates of the unit embeddings, made unit again: `[len(words), E]` float32."""
        unseen = [word for word in dict.fromkeys(words) if (templates, word) not in self.memory]
        if unseen:
            self.warn_unknown(unseen)
            self.warn_cut(unseen, templates)
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

    @abstractmethod
    def token_count(self, text: str) -> int:
        """Tokens of a text, uncut, those of its start and end among them."""

    def warn_cut(self, words: list[str], templates: tuple[str, ...]) -> None:
        """Warn of words that under a template are longer than the text tower reads."""
        for word in words:
            text = max((template.replace("{}", word) for template in templates), key=len)
            # A token is at least a byte long.
            if len(text.encode()) > self.context - 2 and (count := self.token_count(text)) > self.context:
                shown = word if len(word) <= 60 else f"{word[:60]}..."
                warn_caller(f"{shown!r} is cut: {count} tokens with its template, the model reads {self.context}")

    def warn_unknown(self, words: list[str]) -> None:
        """Warn of words that a text tower with a partial vocabulary cannot read."""
        if self.known_tokens is None:
            return
        ids = self.token_ids(words)
        unknown = [word for word, own in zip(words, ids, strict=True) if not self.known_tokens.issuperset(own)]
        if unknown:
            more = f" and {len(unknown) - _MOST_NAMED:,} more" if len(unknown) > _MOST_NAMED else ""
            named = ", ".join(unknown[:_MOST_NAMED])
            warn_caller(f"this model's vocabulary does not hold: {named}{more}; its scores for them mean nothing")
