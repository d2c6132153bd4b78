"""The images of folders: each folder in the order of its names, those that links lead to once."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..images import EXTENSIONS, sniff
from .found import ARCHIVES, OWN_ENDINGS, Found, PassedOver


class _Folder(NamedTuple):
    """A folder: its path, real path, and name within the input."""

    path: str
    real: str
    inside: str


class Folders:
    """Folders of the inputs.

    Attributes:
        passed_over: what is not taken.
    """

    def __init__(self, passed_over: PassedOver) -> None:
        self.passed_over = passed_over
        self._entered: set[tuple[int, int]] = set()

    def below(self, root: str) -> Iterator[Found]:
        """Images of a folder and of those below it, each folder in the order of its names."""
        open_folders = [self._entries(_Folder(root, os.path.realpath(root), ""))]
        while open_folders:
            for found in open_folders[-1]:
                if isinstance(found, _Folder):
                    open_folders.append(self._entries(found))
                    break
                yield found
            else:
                open_folders.pop()

    def _entries(self, folder: _Folder) -> Iterator["Found | _Folder"]:
        """Images of one folder, and its folders."""
        try:
            place = os.stat(folder.path)
            if (place.st_dev, place.st_ino) in self._entered:
                self.passed_over.note("folders that were listed already", folder.path)
                return
            self._entered.add((place.st_dev, place.st_ino))
            with os.scandir(folder.path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            self.passed_over.note(f"folders that can't be read ({error.strerror})", folder.path)
            return
        wanted = [entry for entry in entries if self._can_be_told(entry) and self._is_wanted(entry)]
        images = [entry.name for entry in wanted if not entry.is_dir()]
        called = dict(zip(images, names_in(images), strict=True))
        for entry in wanted:
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(folder.real, entry.name)
            inside = os.path.join(folder.inside, called.get(entry.name, entry.name))
            yield Found(entry.path, real, inside) if entry.name in called else _Folder(entry.path, real, inside)

    def _can_be_told(self, entry: "os.DirEntry[str]") -> bool:
        """Whether it can be asked what it is, unlike links in a circle, or into a place that is not for us."""
        try:
            entry.is_dir()
        except OSError as error:
            return self.passed_over.note(f"links that can't be followed ({error.strerror})", entry.path)
        return True

    def _is_wanted(self, entry: "os.DirEntry[str]") -> bool:
        """Whether what is in a folder is a folder or an image to segment; if not, it is counted."""
        ending = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            return self.passed_over.note("hidden files and folders", entry.path)
        if entry.is_dir():
            return True
        if is_own(entry.path, self.passed_over):
            return False
        if not entry.is_file():
            broken = entry.is_symlink() and not os.path.exists(entry.path)
            reason = "links that lead nowhere" if broken else "pipes, sockets and devices"
            return self.passed_over.note(reason, entry.path)
        if ending in EXTENSIONS or (not ending and sniff(entry.path)):
            return True
        if ending in ARCHIVES:
            return self.passed_over.note("archives and tables, which are read where they are named", entry.path)
        return self.passed_over.note("files that are no images", entry.path)


def is_own(path: str, passed_over: PassedOver) -> bool:
    """Whether a run wrote a picture, which is noted then."""
    if path.endswith(OWN_ENDINGS):
        passed_over.note("pictures that a run wrote", path)
        return True
    return False


def names_in(files: Iterable[str]) -> list[str]:
    """Names without the ending, or with it where two files of a folder would share one, upper or lower case."""
    paths = [Path(file) for file in files]
    shared = Counter(path.stem.casefold() for path in paths)
    return [path.stem if shared[path.stem.casefold()] == 1 else path.name for path in paths]
