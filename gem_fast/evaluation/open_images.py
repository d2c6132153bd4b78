"""OpenImages V7's points: what people said yes or no to at places of the validation photographs. Needs no torch."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from .datasets import POINTS

ANNOTATIONS, DESCRIPTIONS = "oidv7-val-annotations-point-labels.csv", "oidv7-class-descriptions.csv"
_NEEDED = ("ImageId", "X", "Y", "Label", "EstimatedYesNo")
_IMAGE = re.compile(r"\w{1,64}")


@dataclass(frozen=True)
class Pointed:
    """A photograph and, for each class that is in it, its points: `[N, 2]` x and y in 0..1, and whether they are it."""

    path: Path
    points: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(repr=False)


@dataclass(frozen=True)
class PointSet:
    """Photographs with points, under the name that `--data` has."""

    images: tuple[Pointed, ...] = field(repr=False)
    name: str = POINTS
    kind: str = POINTS


def open_points(root: Path | None) -> PointSet:
    """The photographs of `root/validation` with points, and those of their classes that at least one point is of.

    Raises:
        ValueError: a file is missing or is none of OpenImages V7's; the message says what was expected where.
    """
    if root is None:
        raise ValueError(f"{POINTS} lies below a folder: name it with --root")
    for path, kind in ((root / ANNOTATIONS, "file"), (root / DESCRIPTIONS, "file"), (root / "validation", "folder")):
        if not (path.is_file() if kind == "file" else path.is_dir()):
            raise ValueError(f"{POINTS}: expected the {kind} {path}, and there is none; --root is what holds it")
    names = {row[0]: row[1] for row in _rows(root / DESCRIPTIONS) if len(row) > 1}
    by_image: dict[str, dict[str, list[tuple[float, float, bool]]]] = defaultdict(lambda: defaultdict(list))
    for image, word, *point in _points(root / ANNOTATIONS, names):
        by_image[image][word].append(tuple(point))
    found = []
    for image in sorted(by_image):
        classes = {word: points for word, points in by_image[image].items() if any(yes for *_, yes in points)}
        if not classes:
            continue
        path = root / "validation" / f"{image}.jpg"
        if not path.is_file():
            raise ValueError(f"{POINTS}: expected the photograph {path}, and there is none")
        found.append(Pointed(path, {word: _arrays(points) for word, points in classes.items()}))
    if not found:
        raise ValueError(f"{root / ANNOTATIONS} has no photograph with a point that is said yes to")
    return PointSet(tuple(found))


def _arrays(points: list[tuple[float, float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([point[:2] for point in points]), np.array([point[2] for point in points])


def _rows(path: Path) -> Iterator[list[str]]:
    """Rows of a CSV file."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            yield from csv.reader(_lines(file))
    except (OSError, csv.Error) as error:
        raise ValueError(f"{path} can't be read: {error}") from error


def _lines(file: TextIO) -> Iterator[str]:
    """Lines of a file, none of which is longer than the reader lets a field be."""
    most = csv.field_size_limit()
    while line := file.readline(most + 1):
        if len(line) > most:
            raise csv.Error(f"a line has more than {most:,} letters")
        yield line


def _points(path: Path, names: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
    """Image, word, x, y and whether it is so, of each point that people were sure of."""
    rows = _rows(path)
    columns = next(rows, [])
    if missing := [name for name in _NEEDED if name not in columns]:
        raise ValueError(f"{path} has no column {', '.join(missing)}; its first line must name {', '.join(_NEEDED)}")
    places = {name: columns.index(name) for name in (*_NEEDED, "TextLabel") if name in columns}
    for number, row in enumerate(rows, 2):
        try:
            entry = {name: row[place] for name, place in places.items()}
            x, y = float(entry["X"]), float(entry["Y"])
        except (IndexError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: no point ({error})") from error
        if not (0 <= x <= 1 and 0 <= y <= 1 and _IMAGE.fullmatch(entry["ImageId"])):
            raise ValueError(f"{path}, line {number}: a point has X and Y in 0..1 and an ImageId of letters and digits")
        if entry["EstimatedYesNo"] not in ("yes", "no"):
            continue  # "unsure"
        word = (entry.get("TextLabel") or names.get(entry["Label"], "")).strip()
        if not word:
            raise ValueError(f"{path}, line {number}: {DESCRIPTIONS} has no name for {entry['Label']}")
        yield entry["ImageId"], word, x, y, entry["EstimatedYesNo"] == "yes"
