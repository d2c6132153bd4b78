"""What an interrupted evaluation has finished, so that it goes on there. Needs no torch."""

import json
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

Counts = list[list[int]]  # of an image, as the measure writes them


class Journal:
    """Counts of images that are finished, a line each."""

    def __init__(self, path: Path | None, question: dict[str, Any], images: Sequence[Any], width: int) -> None:
        """Open it; what it holds of other questions is left alone.

        Args:
            path: its file, or None for none.
            question: all that the counts of every image depend on.
            images: what those of each depend on besides.
            width: numbers in each row of the counts.
        """
        self.path, self._width = path, width
        asked = json.dumps(question, sort_keys=True)
        self._keys = [sha256(f"{asked}{json.dumps(each)}".encode()).hexdigest()[:16] for each in images]
        self.finished = dict(self._read()) if path is not None and path.exists() else {}

    def _read(self) -> Iterator[tuple[int, Counts]]:
        assert self.path is not None
        places = {key: index for index, key in enumerate(self._keys)}
        with open(self.path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    if entry["key"] in places:
                        counts = [[int(each) for each in row] for row in entry["counts"]]
                        if all(len(row) == self._width for row in counts):
                            yield places[entry["key"]], counts
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a run that was cut off

    def keep(self, index: int, counts: Counts) -> None:
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"key": self._keys[index], "counts": counts}) + "\n")


def version_of(path: Path | str) -> tuple[str, int, int] | None:
    """A file's path, size and time of change, by which another one of its name is told; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return str(path), found.st_size, found.st_mtime_ns
