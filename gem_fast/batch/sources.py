"""Which images inputs stand for, and what their outputs are called: listed as they are asked for, never all held."""

import glob
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

from ..images import EXTENSIONS, sniff
from ..outputs import KINDS
from .progress import Progress

Inputs = str | os.PathLike | Iterable[str | os.PathLike]
# Endings of pictures that a run wrote.
OWN_ENDINGS = tuple(kind.ending for kind in KINDS if Path(kind.ending).suffix in EXTENSIONS)
_MOST_NAMED = 3  # examples of what was passed over


@dataclass(frozen=True)
class Source:
    """One image: its file, the start of its output names relative to the output folder, and what it is told by."""

    path: Path
    name: str
    key: int  # fingerprint of the real path, the same however the file is spelled


class _Folder(NamedTuple):
    """A folder: its path, real path, and name within the input."""

    path: str
    real: str
    inside: str


def as_list(inputs: Inputs) -> list[str]:
    """One input or several, as text."""
    return [os.fspath(each) for each in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)]


def check_inputs(inputs: Inputs) -> list[str]:
    """The inputs as a list, each of which is a file or a folder, or matches a file as a pattern.

    Raises:
        ValueError: an input is nothing of that.
    """
    listed = as_list(inputs)
    for text in listed:
        if not os.path.lexists(text) and not any(os.path.isfile(match) for match in glob.iglob(text, recursive=True)):
            raise ValueError(f"{text}: no such file or folder, and as a pattern it matches no file")
    return listed


def fingerprint(text: str) -> int:
    """64 bits that stand for a text: a million of them are small."""
    return int.from_bytes(blake2b(os.fsencode(text), digest_size=8).digest(), "big")


class Listing:
    """The images of files, folders (with subfolders) and glob patterns, in a fixed order, each once.

    A file that is named is taken whatever it is; in folders, what has an image's ending or, without an ending, an
    image's first bytes. Folders that links lead to are entered once. Passed over, counted by reason in `passed_over`,
    are what is hidden, what is no image, pictures that a run wrote, and what can't be read.

    Outputs are named after the file, below a folder with the subfolders. In one folder, images that would share a name
    keep their endings; across inputs the later one gets a number.
    """

    def __init__(self, inputs: Inputs, finished: Mapping[int, int] | None = None) -> None:
        """List inputs.

        Args:
            inputs: see above.
            finished: images that have outputs from an earlier run, by key, with the fingerprint of the casefolded name.
        """
        self.inputs = check_inputs(inputs)
        self.passed_over: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._finished = finished or {}

    def __iter__(self) -> Iterator[Source]:
        seen: set[int] = set()
        taken = set(self._finished.values())
        for path, real, name in self._paths():
            key = fingerprint(real)
            if key in seen:
                continue
            seen.add(key)
            if key not in self._finished:
                name = _untaken(name, taken)
            yield Source(Path(path), name, key)

    def told(self) -> Iterator[str]:
        """A line for each reason for which files or folders were passed over."""
        for reason, count in sorted(self.passed_over.items()):
            examples = self.examples[reason]
            more = ", ..." if count > len(examples) else ""
            yield f"passed over {count:,} {reason}: {', '.join(examples)}{more}"

    def _paths(self) -> Iterator[tuple[str, str, str]]:
        """Paths, real paths, and the names that their folder gives them."""
        entered: set[tuple[int, int]] = set()
        for text in self.inputs:
            if os.path.isdir(text):
                yield from self._below(text, entered)
            elif os.path.lexists(text):
                yield text, os.path.realpath(text), Path(text).stem
            else:
                matches = sorted(glob.glob(text, recursive=True))
                files = [match for match in matches if os.path.isfile(match) and not self._is_own(match)]
                for path, name in zip(files, _names(files), strict=True):
                    yield path, os.path.realpath(path), name

    def _below(self, root: str, entered: set[tuple[int, int]]) -> Iterator[tuple[str, str, str]]:
        """Images of a folder and of those below it, each folder in the order of its names."""
        open_folders = [self._entries(_Folder(root, os.path.realpath(root), ""), entered)]
        while open_folders:
            for found in open_folders[-1]:
                if isinstance(found, _Folder):
                    open_folders.append(self._entries(found, entered))
                    break
                yield found
            else:
                open_folders.pop()

    def _entries(self, folder: "_Folder", entered: set[tuple[int, int]]) -> Iterator["tuple[str, str, str] | _Folder"]:
        """Images of one folder as `_paths` gives them, and its folders."""
        try:
            place = os.stat(folder.path)
            if (place.st_dev, place.st_ino) in entered:
                self._pass_over("folders that were listed already", folder.path)
                return
            entered.add((place.st_dev, place.st_ino))
            with os.scandir(folder.path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            self._pass_over(f"folders that can't be read ({error.strerror})", folder.path)
            return
        wanted = [entry for entry in entries if self._is_wanted(entry)]
        images = [entry.name for entry in wanted if not entry.is_dir()]
        called = dict(zip(images, _names(images), strict=True))
        for entry in wanted:
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(folder.real, entry.name)
            inside = os.path.join(folder.inside, called.get(entry.name, entry.name))
            yield (entry.path, real, inside) if entry.name in called else _Folder(entry.path, real, inside)

    def _is_wanted(self, entry: "os.DirEntry[str]") -> bool:
        """Whether what is in a folder is a folder or an image to segment; if not, it is counted."""
        ending = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            return self._pass_over("hidden files and folders", entry.path)
        if entry.is_dir():
            return True
        if self._is_own(entry.path):
            return False
        if not entry.is_file():
            broken = entry.is_symlink() and not os.path.exists(entry.path)
            reason = "links that lead nowhere" if broken else "pipes, sockets and devices"
            return self._pass_over(reason, entry.path)
        if ending in EXTENSIONS or (not ending and sniff(entry.path)):
            return True
        return self._pass_over("files that are no images", entry.path)

    def _is_own(self, path: str) -> bool:
        if path.endswith(OWN_ENDINGS):
            self._pass_over("pictures that a run wrote", path)
            return True
        return False

    def _pass_over(self, reason: str, path: str) -> Literal[False]:
        """Count what is not taken, and say so."""
        self.passed_over[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _MOST_NAMED:
            examples.append(path)
        return False


def count_in_background(inputs: Inputs, progress: Progress) -> None:
    """Tell the progress how many images there are, as soon as they are counted."""

    def count() -> None:
        with suppress(ValueError):  # an input that is gone by now is the run's own to tell
            progress.total = sum(1 for _ in Listing(inputs))

    threading.Thread(target=count, name="count", daemon=True).start()


def _names(files: Iterable[str]) -> list[str]:
    """Names without the ending, or with it where two files of a folder would share one, upper or lower case."""
    paths = [Path(file) for file in files]
    shared = Counter(path.stem.casefold() for path in paths)
    return [path.stem if shared[path.stem.casefold()] == 1 else path.name for path in paths]


def _untaken(name: str, taken: set[int]) -> str:
    """The name, with a number if it is taken; it is taken then."""
    unique, number = name, 2
    while fingerprint(unique.casefold()) in taken:
        unique, number = f"{name}-{number}", number + 1
    taken.add(fingerprint(unique.casefold()))
    return unique
