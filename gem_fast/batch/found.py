"""What listing finds before it is named: images, rows of tables, and what is passed over."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from ..images import EXTENSIONS
from ..outputs import KINDS
from .contents import Refused, Remote, Stretch
from .tables.columns import Rows
from .tables.opening import ENDINGS, Row

Content = Stretch | Remote | Refused | Row
# Endings of pictures that a run wrote.
OWN_ENDINGS = tuple(kind.ending for kind in KINDS if Path(kind.ending).suffix in EXTENSIONS)
ARCHIVES = (".tar", *ENDINGS)
_MOST_NAMED = 3  # examples of what was passed over


class Found(NamedTuple):
    """An image before it has a name that no other has."""

    image: str
    real: str
    name: str
    content: Content | None = None


@dataclass(frozen=True)
class TableRows:
    """Images in rows of a table."""

    table: str
    real: str
    column: str | None  # of their bytes; None if the texts are paths
    rows: Rows


class PassedOver(Counter[str]):
    """What is not taken, by reason, with a few examples of each."""

    def __init__(self) -> None:
        super().__init__()
        self.examples: dict[str, list[str]] = {}

    def note(self, reason: str, path: str) -> Literal[False]:
        """Count what is not taken, and say so."""
        self[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _MOST_NAMED:
            examples.append(path)
        return False

    def told(self) -> Iterator[str]:
        """A line for each reason."""
        for reason, count in sorted(self.items()):
            examples = self.examples[reason]
            more = ", ..." if count > len(examples) else ""
            yield f"passed over {count:,} {reason}: {', '.join(examples)}{more}"
