"""Which images there are, and what their outputs are called."""

import glob
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..images import EXTENSIONS
from ..outputs import KINDS

# What an earlier run wrote and is a picture.
_OWN_ENDINGS = tuple(kind.ending for kind in KINDS if Path(kind.ending).suffix in EXTENSIONS)


@dataclass(frozen=True)
class Job:
    """One image to segment, and the start of its output names, relative to the output folder."""

    path: Path
    stem: str


def find_images(inputs: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Job]:
    """Images that files, folders (searched with their subfolders) and glob patterns stand for, in sorted order.

    A file that is named is taken whatever its ending; in folders, files with an image's ending are. Folders and
    patterns pass over what is hidden, and over pictures that an earlier run wrote.

    Raises:
        ValueError: an input is neither a file nor a folder, and as a pattern matches nothing.
    """
    found: dict[Path, str] = {}
    for given in [inputs] if isinstance(inputs, str | os.PathLike) else inputs:
        text = os.fspath(given)
        if os.path.isdir(text):
            root = Path(text)
            for path in sorted(root.rglob("*")):
                inside = path.relative_to(root)
                hidden = any(part.startswith(".") for part in inside.parts)
                if path.suffix.lower() in EXTENSIONS and not hidden and not _is_own(path) and path.is_file():
                    found.setdefault(path, str(inside.with_suffix("")))
        else:
            matches = sorted(glob.glob(text, recursive=True))
            files = [Path(match) for match in matches if os.path.isfile(match) and not _is_own(Path(match))]
            if os.path.isfile(text):
                files = [Path(text)]
            if not files:
                raise ValueError(f"{text}: no such file or folder, and as a pattern it matches no file")
            for path in files:
                found.setdefault(path, path.stem)
    return with_distinct_stems(found)


def _is_own(path: Path) -> bool:
    return path.name.endswith(_OWN_ENDINGS)


def with_distinct_stems(found: dict[Path, str], reserved: Iterable[str] = ()) -> list[Job]:
    """Where two images would write the same names, the ending is kept; where that is not enough, a number is added."""
    shared = Counter(stem.casefold() for stem in found.values())
    taken = {stem.casefold() for stem in reserved}
    jobs = []
    for path, stem in found.items():
        base = stem if shared[stem.casefold()] == 1 else f"{stem}{path.suffix}"
        unique, number = base, 2
        while unique.casefold() in taken:
            unique, number = f"{base}-{number}", number + 1
        taken.add(unique.casefold())
        jobs.append(Job(path, unique))
    return jobs
