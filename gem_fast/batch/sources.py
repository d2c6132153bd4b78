"""Which images inputs stand for, and what their outputs are called: listed as they are asked for, never all held."""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from ..images import EXTENSIONS
from .archives import as_name, images_in, in_rows, is_hidden
from .contents import Refused, Remote, Stretch
from .fingerprints import Fingerprints, fingerprint
from .found import ARCHIVES, Content, Found, PassedOver, TableRows
from .lists import read_list, standard_input
from .names import output_name
from .options import WHOLE, Part
from .patterns import matches
from .progress import Progress
from .remote import file_system, files_of, is_url, matched
from .walk import Folders, is_own, names_in


@dataclass(frozen=True)
class Checked:
    """Inputs that are there.

    Attributes:
        texts: as they were given.
        matched: what those that are patterns of URLs match, with names: stores are asked for them once.
    """

    texts: list[str]
    matched: dict[str, list[tuple[str, str]]]


Inputs = str | os.PathLike | Iterable[str | os.PathLike] | Checked


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


def check_inputs(inputs: Inputs) -> Checked:
    """One input or several, each of which is a file or a folder, or matches a file as a pattern.

    Raises:
        ValueError: an input is nothing of that, or a URL that fsspec can't open here.
    """
    if isinstance(inputs, Checked):
        return inputs
    several = [inputs] if isinstance(inputs, str | bytes | os.PathLike) else inputs
    checked = Checked([os.fsdecode(each) for each in several], {})
    for text in checked.texts:
        if text == "-":
            continue
        if is_url(text):
            file_system(text)
            if (files := matched(text)) is not None:
                checked.matched[text] = files
            if files == []:
                raise ValueError(f"{text}: there is no such file, and as a pattern it matches none")
        elif text.startswith("@"):
            _check_list(text)
        elif not os.path.lexists(text) and not any(map(os.path.isfile, matches(text))):
            raise ValueError(f"{text}: no such file or folder, and as a pattern it matches no file")
    return checked


@contextmanager
def held_inputs(inputs: Inputs) -> Iterator[Checked]:
    """Inputs that can be listed more than once: what can be read only once is held; see `standard_input`."""
    checked = check_inputs(inputs)
    with standard_input(checked.texts) as texts:
        yield replace(checked, texts=texts)


def _check_list(text: str) -> None:
    """ValueError if `@LIST` names no list, or one that can't be read."""
    if not os.path.exists(text[1:]) or os.path.isdir(text[1:]):
        raise ValueError(f"{text}: there is no list {text[1:]}; ./{text} would be the file of that name")
    try:
        if os.path.isfile(text[1:]):  # a pipe is opened once only
            open(text[1:], "rb").close()
    except OSError as error:
        raise ValueError(f"{text}: the list can't be read: {error.strerror}") from error


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
        self.passed_over = PassedOver()
        self._finished, self._part = finished or {}, part

    def __iter__(self) -> Iterator[Source]:
        seen, taken = Fingerprints(), Fingerprints()
        for each in self._finished.values():
            taken.add(each)
        position = -1
        for index, found in enumerate(self._found()):
            path, real, content = found.image, found.real, found.content
            key = fingerprint(real)
            if key in seen:
                if content is None or isinstance(content, Remote):
                    continue
                while key in seen:  # in an archive or table two may have one name, and are two images
                    path, real = f"{path}#{index}", f"{real}#{index}"
                    key = fingerprint(real)
                content = replace(content, image=path)
            seen.add(key)
            name = found.name if key in self._finished else output_name(found.name, taken)
            position += 1
            if position % self._part.of == self._part.number - 1:
                yield Source(Path(path), name, key, content, position // self._part.of)

    def count(self) -> int:
        """How many images there are: rows of tables by their number alone."""
        seen, count = Fingerprints(), 0
        for item in self._items():
            if isinstance(item, TableRows):
                count += len(item.rows.texts)
            elif seen.add(fingerprint(item.real)) or isinstance(item.content, Stretch | Refused):
                count += 1
        return len(range(self._part.number - 1, count, self._part.of))

    def digest(self) -> str:
        """A fingerprint of the list: another one for other images, or another order."""
        told = blake2b(digest_size=16)
        for item in self._items():
            texts = [item.name] if isinstance(item, Found) else map(str, item.rows.texts)
            texts = [item.real, *texts]
            told.update(f"{len(texts)}\n".encode() + "\0".join(texts).encode(errors="surrogateescape") + b"\n")
        return told.hexdigest()

    def told(self) -> Iterator[str]:
        """A line for each reason for which files or folders were passed over."""
        return self.passed_over.told()

    def _found(self) -> Iterator[Found]:
        for item in self._items():
            if isinstance(item, TableRows):
                yield from in_rows(item)
            else:
                yield item

    def _items(self) -> Iterator[Found | TableRows]:
        """Images as the inputs have them, with real paths and the names that their folder gives them."""
        folders, opened = Folders(self.passed_over), set[str]()
        for text in self.inputs.texts:
            if is_url(text):
                yield from self._behind(text, self.inputs.matched.get(text) or files_of(text), opened)
            elif text.startswith("@"):
                yield from self._listed(text[1:], folders, opened)
            elif os.path.lexists(text):
                yield from self._named(text, folders, opened)
            else:
                files = self._matched(text)
                for path, name in zip(files, names_in(files), strict=True):
                    yield from self._file(path, name, opened)

    def _matched(self, pattern: str) -> list[str]:
        """The files that a pattern matches, in the order of their paths."""
        found = sorted(set(matches(pattern)))
        if "**" not in pattern:  # which goes through the folders that it matches
            for folder in filter(os.path.isdir, found):
                self.passed_over.note("folders that a pattern matches, which are read where they are named", folder)
        return [path for path in found if os.path.isfile(path) and not is_own(path, self.passed_over)]

    def _named(self, path: str, folders: Folders, opened: set[str]) -> Iterator[Found | TableRows]:
        if os.path.isdir(path):
            yield from folders.below(path)
        else:
            yield from self._file(path, Path(path).stem, opened)

    def _listed(self, path: str, folders: Folders, opened: set[str]) -> Iterator[Found | TableRows]:
        """What the lines of a list name: files, folders and URLs, as they stand."""
        for text in read_list(path):
            if text is None:
                self.passed_over.note("lines that are no path", path)
            elif is_url(text):
                yield from self._behind(text, files_of(text), opened)
            else:
                yield from self._named(text, folders, opened)

    def _behind(self, url: str, files: Iterable[tuple[str, str]], opened: set[str]) -> Iterator[Found | TableRows]:
        """The images among the files behind a URL."""
        try:
            for each, name in files:
                stem, ending = os.path.splitext(name)
                if each != url and is_hidden(name):
                    self.passed_over.note("hidden files and folders", each)
                elif each == url or ending.lower() in EXTENSIONS or ending.lower() in ARCHIVES:
                    yield from self._file(each, as_name(stem) or "unnamed", opened)
                else:
                    self.passed_over.note("files that are no images", each)
        except Exception as error:  # a file system of fsspec's raises what it likes
            yield Found(url, url, "unread", Refused(url, f"can't be listed: {error}"))

    def _file(self, path: str, name: str, opened: set[str]) -> Iterator[Found | TableRows]:
        """An image by its file, or those in an archive or table."""
        real = path if is_url(path) else os.path.realpath(path)
        if os.path.splitext(path)[1].lower() not in ARCHIVES:
            yield Found(path, real, name, Remote(path) if is_url(path) else None)
        elif real in opened:
            self.passed_over.note("archives and tables that were listed already", path)
        else:
            opened.add(real)
            yield from images_in(path, real, name, self.passed_over)


def count_in_background(inputs: Inputs, part: Part, progress: Progress) -> None:
    """Tell the progress how many images there are, as soon as they are counted."""

    def count() -> None:
        with suppress(ValueError, OSError):  # an input that is gone by now is the run's own to tell
            progress.total = Listing(inputs, part=part).count()

    threading.Thread(target=count, name="count", daemon=True).start()
