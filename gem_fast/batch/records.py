"""The records of a run: a line of `summary.jsonl` for each image, at its end in the order of the inputs."""

import json
import os
import threading
from array import array
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO

from ..outputs import LABELS
from ..writing import is_whole, write_whole
from .sources import fingerprint

SUMMARY = "summary.jsonl"
ERRORS = "errors.jsonl"
PARTIAL = ".partial"  # folder for files that are being written


@dataclass(frozen=True)
class Record:
    """One line of `summary.jsonl`."""

    image: str
    status: str  # ok or failed
    error: str | None = None
    height: int | None = None
    width: int | None = None
    areas: dict[str, float] = field(default_factory=dict)  # share of the pixels of each class that appears
    files: dict[str, str] = field(default_factory=dict)  # by kind, relative to the output folder

    def line(self) -> bytes:
        return (json.dumps(asdict(self), ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def parse_record(line: bytes | str) -> Record | None:
    """The record of a line, or None for what is none: a line cut off, or of another program."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not set(values) <= {each.name for each in fields(Record)}:
        return None
    texts = (values.get("image"), values.get("status"))
    maps = (values.get("areas", {}), values.get("files", {}))
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(each, dict) for each in maps):
        return None
    if not all(isinstance(name, str) for name in maps[1].values()):
        return None
    return Record(**values)


def read_records(path: str | os.PathLike) -> Iterator[Record]:
    """The records of a run, one by one: of a `summary.jsonl`, or of the output folder that holds it.

    Lines that are no records, such as one that an interruption cut off, are passed over.
    """
    path = Path(path)
    with open(path / SUMMARY if path.is_dir() else path, "rb") as file:
        yield from (record for record in map(parse_record, file) if record)


class Journal:
    """`summary.jsonl` of a running run: a line as soon as an image is done, put in the order of the inputs at the end.

    It holds 8 bytes for each image. Lines of an earlier run are found by the key of their image, see `Source`.

    Attributes:
        finished: images that the earlier run finished, by key, with the fingerprint of their casefolded name.
    """

    def __init__(self, folder: Path, kinds: Set[str], resume: bool) -> None:
        """Open the journal of an output folder.

        Args:
            folder: the output folder, which exists.
            kinds: files that an image of an earlier run must have, whole, to count as finished.
            resume: keep what an earlier run finished; without, start anew.
        """
        self.folder, self.path = folder, folder / SUMMARY
        self.finished: dict[int, int] = {}
        self._kept: dict[int, int] = {}  # key to the offset of the line
        self._lock = threading.Lock()
        self._offsets = array("q")  # of the line of each image, in the order of the inputs; -1 for none
        self._file: IO[bytes] = open(self.path, "a+b" if resume else "w+b")  # noqa: SIM115  # closed by `close`
        if resume:
            self._read_earlier(kinds)

    def _read_earlier(self, kinds: Set[str]) -> None:
        self._file.seek(0)
        offset, line = 0, b"\n"
        for line in self._file:
            record = parse_record(line)
            if record and record.status == "ok" and kinds <= record.files.keys() and self._is_whole(record):
                key = fingerprint(os.path.realpath(record.image))
                self._kept[key] = offset
                self.finished[key] = fingerprint(record.files["labels"].removesuffix(LABELS.ending).casefold())
            offset += len(line)
        if not line.endswith(b"\n"):
            self._file.write(b"\n")  # a line cut off ends here

    def _is_whole(self, record: Record) -> bool:
        return all(is_whole(self.folder / name) for name in record.files.values())

    def keep(self, position: int, key: int) -> None:
        """The image at this position of the inputs is done since the earlier run."""
        self._place(position, self._kept.pop(key))

    def write(self, position: int, record: Record) -> None:
        """Add the record of the image at this position of the inputs."""
        self._place(position, self._file.seek(0, os.SEEK_END))
        self._file.write(record.line())
        self._file.flush()

    def _place(self, position: int, offset: int) -> None:
        with self._lock:  # images are kept by the thread that lists them
            self._offsets.extend([-1] * (position + 1 - len(self._offsets)))
            self._offsets[position] = offset

    def close(self) -> None:
        """Put the lines in the order of the inputs, others behind, and those of failures in `errors.jsonl` too."""
        self._file.flush()
        partial = self.folder / PARTIAL
        offsets = [offset for offset in (*self._offsets, *sorted(self._kept.values())) if offset >= 0]
        failed = [offset for offset in offsets if is_failure(self._line(offset))]
        write_whole(self.path, map(self._line, offsets), partial)
        if failed:
            write_whole(self.folder / ERRORS, map(self._line, failed), partial)
        else:
            (self.folder / ERRORS).unlink(missing_ok=True)
        self._file.close()

    def _line(self, offset: int) -> bytes:
        self._file.seek(offset)
        return self._file.readline()


def is_failure(line: bytes) -> bool:
    record = parse_record(line)
    return record is not None and record.status == "failed"
