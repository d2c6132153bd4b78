"""Which images inputs stand for, and what their outputs are called: listed as they are asked for, never all held."""

import glob
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..images import EXTENSIONS, sniff
from ..outputs import KINDS
from . import tables
from .contents import MAX_BYTES, Refused, Remote, Stretch
from .fingerprints import Fingerprints, fingerprint
from .lists import read_list
from .options import WHOLE, Part
from .progress import Progress
from .remote import files_of, is_url, open_binary
from .tar import members

Content = Stretch | Remote | Refused | tables.Row
Inputs = str | os.PathLike | Iterable[str | os.PathLike]
# Endings of pictures that a run wrote.
OWN_ENDINGS = tuple(kind.ending for kind in KINDS if Path(kind.ending).suffix in EXTENSIONS)
_LONGEST = 1 << 12  # characters of a key or path in a table
_MOST_NAMED = 3  # examples of what was passed over


ARCHIVES = (".tar", *tables.ENDINGS)


@dataclass(frozen=True)
class Source:
    """One image: its file, the start of its output names relative to the output folder, and what it is told by."""

    path: Path
    name: str
    key: int  # fingerprint of the real path, the same however the file is spelled
    content: Content | None = None  # where its bytes are, if that is no file of its own
    position: int = 0  # among the images of the run

    @property
    def image(self) -> str:
        """What it is told by."""
        return self.content.image if self.content else str(self.path)


class _Found(NamedTuple):
    """An image before it has a name that no other has."""

    image: str
    real: str
    name: str
    content: Content | None = None


@dataclass(frozen=True)
class _TableRows:
    """Images in rows of a table."""

    table: str
    real: str
    column: str | None  # of their bytes; None if the texts are paths
    rows: tables.Rows


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
        if text == "-" or is_url(text):
            continue
        if text.startswith("@"):
            if not os.path.isfile(text[1:]):
                raise ValueError(f"{text}: there is no list {text[1:]}; ./{text} would be the file of that name")
            continue
        if not os.path.lexists(text) and not any(os.path.isfile(match) for match in glob.iglob(text, recursive=True)):
            raise ValueError(f"{text}: no such file or folder, and as a pattern it matches no file")
    return listed


class Listing:
    """The images of files, folders (with subfolders) and glob patterns, in a fixed order, each once.

    A file that is named is taken whatever it is; in folders, what has an image's ending or, without an ending, an
    image's first bytes. Folders that links lead to are entered once. Passed over, counted by reason in `passed_over`,
    are what is hidden, what is no image, pictures that a run wrote, and what can't be read.

    Outputs are named after the file, below a folder with the subfolders. In one folder, images that would share a name
    keep their endings; across inputs the later one gets a number.
    """

    def __init__(self, inputs: Inputs, finished: Mapping[int, int] | None = None, part: Part = WHOLE) -> None:
        """List inputs.

        Args:
            inputs: see above.
            part: those that are yielded; names are decided over all.
            finished: images that have outputs from an earlier run, by key, with the fingerprint of the casefolded name.
        """
        self.inputs = check_inputs(inputs)
        self.passed_over: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self._finished, self._part = finished or {}, part

    def __iter__(self) -> Iterator[Source]:
        seen, taken = Fingerprints(), Fingerprints()
        for each in self._finished.values():
            taken.add(each)
        position = -1
        for index, found in enumerate(self._found()):
            key, path, content = fingerprint(found.real), found.image, found.content
            if not seen.add(key):
                if content is None or isinstance(content, Remote):
                    continue
                # In an archive or table two may have one name, and are two images.
                path = f"{path}#{index}"
                key = fingerprint(f"{found.real}#{index}")
                content = replace(content, image=path)
            name = found.name if key in self._finished else _untaken(found.name, taken)
            position += 1
            if position % self._part.of == self._part.number - 1:
                yield Source(Path(path), name, key, content, position // self._part.of)

    def count(self) -> int:
        """How many images there are: rows of tables by their number alone."""
        seen, count = Fingerprints(), 0
        for item in self._items():
            if isinstance(item, _TableRows):
                count += len(item.rows.texts)
            elif seen.add(fingerprint(item.real)) or isinstance(item.content, Stretch | Refused):
                count += 1
        return len(range(self._part.number - 1, count, self._part.of))

    def digest(self) -> str:
        """A fingerprint of the list: another one for other images, or another order."""
        told = blake2b(digest_size=16)
        for item in self._items():
            texts = [item.name] if isinstance(item, _Found) else map(str, item.rows.texts)
            texts = [item.real, *texts]
            told.update(f"{len(texts)}\n".encode() + "\0".join(texts).encode(errors="surrogateescape") + b"\n")
        return told.hexdigest()

    def told(self) -> Iterator[str]:
        """A line for each reason for which files or folders were passed over."""
        for reason, count in sorted(self.passed_over.items()):
            examples = self.examples[reason]
            more = ", ..." if count > len(examples) else ""
            yield f"passed over {count:,} {reason}: {', '.join(examples)}{more}"

    def _found(self) -> Iterator[_Found]:
        for item in self._items():
            if isinstance(item, _TableRows):
                yield from _in_rows(item)
            else:
                yield item

    def _items(self) -> Iterator["_Found | _TableRows"]:
        """Images as the inputs have them, with real paths and the names that their folder gives them."""
        entered: set[tuple[int, int]] = set()
        opened: set[str] = set()
        for text in self.inputs:
            if is_url(text):
                yield from self._behind(text, opened)
            elif text.startswith("@"):
                yield from self._listed(text[1:], entered, opened)
            elif os.path.lexists(text):
                yield from self._named(text, entered, opened)
            else:
                matches = sorted(glob.glob(text, recursive=True))
                files = [match for match in matches if os.path.isfile(match) and not self._is_own(match)]
                for path, name in zip(files, _names(files), strict=True):
                    yield from self._file(path, name, opened)

    def _named(self, path: str, entered: set[tuple[int, int]], opened: set[str]) -> Iterator["_Found | _TableRows"]:
        if os.path.isdir(path):
            yield from self._below(path, entered)
        else:
            yield from self._file(path, Path(path).stem, opened)

    def _listed(self, path: str, entered: set[tuple[int, int]], opened: set[str]) -> Iterator["_Found | _TableRows"]:
        """What the lines of a list name: files, folders and URLs, as they stand."""
        for text in read_list(path):
            if text is None:
                self._pass_over("lines that are no path", path)
            elif is_url(text):
                yield from self._behind(text, opened)
            else:
                yield from self._named(text, entered, opened)

    def _behind(self, url: str, opened: set[str]) -> Iterator["_Found | _TableRows"]:
        """The images behind a URL."""
        try:
            for each, name in files_of(url):
                ending = os.path.splitext(name)[1].lower()
                if each == url or ending in EXTENSIONS or ending in ARCHIVES:
                    yield from self._file(each, os.path.splitext(name)[0], opened)
                else:
                    self._pass_over("files that are no images", each)
        except OSError as error:
            yield _Found(url, url, "unread", Refused(url, f"can't be listed: {error}"))

    def _file(self, path: str, name: str, opened: set[str]) -> Iterator["_Found | _TableRows"]:
        """An image by its file, or those in an archive or table."""
        real = path if is_url(path) else os.path.realpath(path)
        kind = os.path.splitext(path)[1].lower()
        if kind not in ARCHIVES:
            yield _Found(path, real, name, Remote(path) if is_url(path) else None)
        elif real in opened:
            self._pass_over("archives and tables that were listed already", path)
        else:
            opened.add(real)
            try:
                yield from self._in_tar(path, real) if kind == ".tar" else self._in_table(path, real)
            except (tables.TableError, OSError) as error:
                said = error.strerror if isinstance(error, OSError) and error.strerror else error
                yield _Found(path, real, name, Refused(path, str(said)))

    def _in_tar(self, path: str, real: str) -> Iterator[_Found]:
        with open_binary(path) as file:
            for member in members(file):
                image, place = f"{path}/{member.name}", f"{real}/{member.name}"
                stem, ending = os.path.splitext(member.name)
                if member.refused:
                    yield _Found(image, place, "refused", Refused(image, member.refused))
                elif os.path.basename(member.name).startswith("."):
                    self._pass_over("hidden files and folders", image)
                elif member.name.endswith(OWN_ENDINGS):
                    self._pass_over("pictures that a run wrote", image)
                elif ending.lower() not in EXTENSIONS:
                    self._pass_over("files that are no images", image)
                elif member.size > MAX_BYTES:
                    yield _Found(image, place, stem, Refused(image, f"larger than {MAX_BYTES:,} bytes"))
                else:
                    yield _Found(image, place, stem, Stretch(image, path, member.offset, member.size))

    def _in_table(self, path: str, real: str) -> Iterator[_TableRows]:
        table = tables.open_table(path)
        if table.is_own:
            self._pass_over("tables that a run wrote", path)
            return
        columns = tables.columns_of(table.schema)
        for rows in table.rows(columns):
            yield _TableRows(path, real, columns.content, rows)

    def _below(self, root: str, entered: set[tuple[int, int]]) -> Iterator[_Found]:
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

    def _entries(self, folder: "_Folder", entered: set[tuple[int, int]]) -> Iterator["_Found | _Folder"]:
        """Images of one folder, and its folders."""
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
            yield _Found(entry.path, real, inside) if entry.name in called else _Folder(entry.path, real, inside)

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
        if ending in ARCHIVES:
            return self._pass_over("archives and tables, which are read where they are named", entry.path)
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


def count_in_background(inputs: Inputs, part: Part, progress: Progress) -> None:
    """Tell the progress how many images there are, as soon as they are counted."""

    def count() -> None:
        with suppress(ValueError):  # an input that is gone by now is the run's own to tell
            progress.total = Listing(inputs, part=part).count()

    threading.Thread(target=count, name="count", daemon=True).start()


def _names(files: Iterable[str]) -> list[str]:
    """Names without the ending, or with it where two files of a folder would share one, upper or lower case."""
    paths = [Path(file) for file in files]
    shared = Counter(path.stem.casefold() for path in paths)
    return [path.stem if shared[path.stem.casefold()] == 1 else path.name for path in paths]


def _untaken(name: str, taken: Fingerprints) -> str:
    """The name, with a number if it is taken; it is taken then."""
    unique, number = name, 2
    while not taken.add(fingerprint(unique.casefold())):
        unique, number = f"{name}-{number}", number + 1
    return unique


def _in_rows(item: _TableRows) -> Iterator[_Found]:
    """Images in rows of a table, called by their keys as far as these can name a file."""
    for row, text in enumerate(item.rows.texts, item.rows.first):
        if item.column is None:
            yield _by_path(f"{item.table}/row-{item.rows.group}-{row}", text)
            continue
        name = _as_name(text) or f"{item.rows.group}-{row}"
        stem, ending = os.path.splitext(name)
        image = f"{item.table}/{name}"
        content = tables.Row(image, item.table, item.rows.group, row, item.column)
        yield _Found(image, f"{item.real}/{name}", stem if ending.lower() in EXTENSIONS else name, content)


def _by_path(row: str, path: str | None) -> _Found:
    """The image that a table names by its path; no more than a plain URL is taken from a table of others."""
    if not path or "\0" in path or "::" in path or len(path) > _LONGEST:
        return _Found(row, row, "refused", Refused(row, "the row has no path of an image"))
    stem = os.path.splitext(os.path.basename(path))[0] or "unnamed"
    return _Found(path, path, stem, Remote(path)) if is_url(path) else _Found(path, os.path.realpath(path), stem)


def _as_name(key: Any) -> str:
    """A key as a name below a folder: no part of it is empty or leads out."""
    parts = re.sub(r"[\0-\x1f\\]", "_", "" if key is None else str(key)[:_LONGEST]).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))
