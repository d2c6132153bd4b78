"""The output of a run as files: each image's own, with its line of the summary as soon as they are there."""

from collections.abc import Iterator
from pathlib import Path

from ..outputs import LABELS, OutputKind
from ..writing import is_whole
from .fingerprints import fingerprint, identity
from .folder import remove_output
from .progress import Progress
from .records import Journal, Record
from .sources import Listing, Source
from .stores import FileStore


class Files:
    """Output as files. What an earlier run finished, and is whole, is kept; what failed is tried again.

    Attributes:
        store: where workers put an image's files.
        finished: images that the earlier run finished, by key, with the fingerprint of their casefolded name.
    """

    def __init__(self, folder: Path, kinds: tuple[OutputKind, ...], journal: Journal) -> None:
        self.store = FileStore(folder, kinds)
        self.finished: dict[int, int] = {}
        self._folder, self._journal = folder, journal
        self._kept: dict[int, int] = {}  # key to the offset of the line
        self._again: dict[int, int] = {}  # the same of what lacks a kind that is asked for, or is not whole
        for offset, record in journal.earlier():
            if record.status != "ok":
                continue
            key = int(record.key, 16) if record.key else identity(record.image)  # earlier versions wrote none
            self._again[key] = offset
            if all(record.files.get(kind.name, "").endswith(kind.ending) for kind in kinds) and self._is_whole(record):
                self._kept[key] = self._again.pop(key)
                self.finished[key] = fingerprint(record.files["labels"].removesuffix(LABELS.ending).casefold())

    def _is_whole(self, record: Record) -> bool:
        return all(is_whole(self._folder / name) for name in record.files.values())

    def unfinished(self, listing: Listing, progress: Progress) -> Iterator[tuple[int, Source]]:
        """The images to do, with their positions in the inputs."""
        for source in listing:
            if source.key in self.finished:
                self._journal.place(source.position, self._kept[source.key])
                progress.kept += 1
            else:
                yield source.position, source

    def add(self, source: Source, result: Record) -> None:
        """An image is finished, or has failed."""
        if result.status == "ok" and source.key in self._again:
            self._remove_others(self._again.pop(source.key), result)
        self._journal.write(source.position, result)

    def _remove_others(self, offset: int, result: Record) -> None:
        """Remove files of an image that was done again that its earlier line named: no line names them any more."""
        earlier = self._journal.read(offset)
        if earlier.files.get(LABELS.name) == result.files[LABELS.name]:  # or its name may be another's by now
            for name in set(earlier.files.values()) - set(result.files.values()):
                remove_output(self._folder, name)

    def end(self) -> None:
        """All images were tried."""

    def close(self) -> None:
        """Leave a whole summary."""
        self._journal.close(self._kept.values())  # a run that stops has not listed all of them
