"""The records of a run, a line of `summary.jsonl` each, and what an earlier run finished."""

import json
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

SUMMARY = "summary.jsonl"


@dataclass(frozen=True)
class Record:
    """One line of `summary.jsonl`."""

    image: str
    status: str  # ok or failed
    error: str | None = None
    height: int | None = None
    width: int | None = None
    areas: dict[str, float] = field(default_factory=dict)  # share of the pixels of each class that appears
    files: dict[str, str] = field(default_factory=dict)  # relative to the output folder


def finished_images(out: Path, kinds: Set[str]) -> dict[str, str]:
    """Images of which an earlier run wrote these kinds of files, with their lines of its summary.

    A line cut off counts as not written.
    """
    finished = {}
    path = out / SUMMARY
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                record = Record(**json.loads(line))
            except (ValueError, TypeError):
                continue
            whole = all((out / name).exists() for name in record.files.values())
            if record.status == "ok" and whole and kinds <= record.files.keys():
                finished[record.image] = line + "\n"
    return finished
