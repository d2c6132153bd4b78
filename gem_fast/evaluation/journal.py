"""What an interrupted evaluation has finished, so that it goes on there. Needs no torch."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

Counts = list[list[int]]  # of an image, as the measure writes them


class Journal:
    """Counts of images that are finished, a line each."""

    def __init__(self, path: Path | None, question: dict[str, Any], width: int) -> None:
        """Open it; what it holds of other questions is left alone.

        Args:
            path: its file, or None for none.
            question: all that the counts depend on.
            width: numbers in each row of the counts.
        """
        self.path, self._width = path, width
        self._key = sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]
        self.finished = dict(self._read()) if path is not None and path.exists() else {}

    def _read(self) -> Iterator[tuple[int, Counts]]:
        assert self.path is not None
        with open(self.path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    if entry["key"] == self._key:
                        counts = [[int(each) for each in row] for row in entry["counts"]]
                        if all(len(row) == self._width for row in counts):
                            yield int(entry["image"]), counts
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a run that was cut off

    def keep(self, index: int, counts: Counts) -> None:
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"key": self._key, "image": index, "counts": counts}) + "\n")
