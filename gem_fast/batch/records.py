"""The records of a run: a line of `summary.jsonl` for each image, at its end in the order of the inputs."""

import json
import os
import re
import threading
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path

import numpy as np

from ..writing import told_of, write_whole

SUMMARY = "summary.jsonl"
ERRORS = "errors.jsonl"
RUN = "run.json"
LEGEND = "legend.json"
LOCK = ".lock"
PARTIAL = ".partial"  # folder for files that are being written
OWN_FILES = (SUMMARY, ERRORS, RUN, LEGEND, LOCK, PARTIAL)
_KEY = re.compile("[0-9a-f]{16}")


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
    key: str | None = None  # of the real path, where it has files: it is known by it wherever a run is resumed

    def line(self) -> bytes:
        return (json.dumps(vars(self), ensure_ascii=False) + "\n").encode(errors="backslashreplace")


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
    if (key := values.get("key")) is not None and not (isinstance(key, str) and _KEY.fullmatch(key)):
        return None
    return Record(**values)


def read_records(path: str | os.PathLike) -> Iterator[Record]:
    """The records of a run, one by one: of a `summary.jsonl`, or of the output folder that holds it, or its parts.

    Lines that are no records, such as one that an interruption cut off, are passed over.

    Raises:
        OSError: there are none, or they can't be read. ValueError: parts are there of more than one number.
    """
    path = Path(path)
    if path.is_dir() and not (path / SUMMARY).exists() and (parts := sorted(path.glob(f"part-*-of-*/{SUMMARY}"))):
        if len(numbers := sorted({part.parent.name.rsplit("-", 1)[-1] for part in parts})) > 1:
            raise ValueError(
                f"{path} holds parts of {' and of '.join(numbers)}, each with all images: name their folders"
            )
        for part in parts:
            yield from read_records(part)
        return
    with open(path / SUMMARY if path.is_dir() else path, "rb") as file:
        yield from (record for record in map(parse_record, file) if record)


def reason_of(record: Record) -> str:
    """A failure without what is this image's own: its path, numbers, what stands in brackets."""
    text = (record.error or "").removeprefix(record.image).lstrip(": ")
    return re.sub(r"\d[\d,.×]*", "N", re.split(r" \(|; |: ", text)[0]) or "unknown"


class Journal:
    """`summary.jsonl` of a running run: lines as they come, put in the order of the inputs at the end.

    It holds 8 bytes for each image.
    """

    def __init__(self, folder: Path, resume: bool) -> None:
        """Open the journal of an output folder, which exists; `resume` keeps the lines of an earlier run."""
        self.folder, self.path = folder, folder / SUMMARY
        self._lock = threading.Lock()
        self._offsets = array("q")  # of the line of each image, in the order of the inputs; -1 for none
        # Unbuffered: what a full disk refuses must not be tried again when the file is closed.
        self._file = open(self.path, "a+b" if resume else "w+b", buffering=0)  # noqa: SIM115  # closed by `close`

    def earlier(self) -> Iterator[tuple[int, Record]]:
        """Records of the earlier run, with the offsets of their lines."""
        offset, line = 0, b"\n"
        with open(self.path, "rb") as file:
            for line in file:
                if record := parse_record(line):
                    yield offset, record
                offset += len(line)
        if not line.endswith(b"\n"):
            self._append(b"\n")  # a line cut off ends here

    def read(self, offset: int) -> Record:
        """The record of the earlier run whose line is there."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            record = parse_record(file.readline())
        assert record is not None
        return record

    def write(self, position: int, record: Record) -> None:
        """Add the record of the image at this position of the inputs."""
        self.place(position, self._file.seek(0, os.SEEK_END))  # first: an interrupt after the line would lose it
        self._append(record.line())

    def place(self, position: int, offset: int) -> None:
        """The line of the image at this position of the inputs is there already."""
        with self._lock:  # images are kept by the thread that lists them
            self._offsets.extend([-1] * (position + 1 - len(self._offsets)))
            self._offsets[position] = offset

    def sync(self) -> None:
        """See to it that what was written is on the disk."""
        with told_of(self.path):
            os.fsync(self._file.fileno())

    def close(self, others: Iterable[int] = ()) -> None:
        """Put the lines in the order of the inputs, others behind, and those of failures in `errors.jsonl` too.

        Others may have been placed, or be placed meanwhile: each is there once.
        """
        partial = self.folder / PARTIAL
        with self._lock:
            placed = np.array(self._offsets)
        others = np.setdiff1d(np.fromiter(others, np.int64), placed)  # sorted
        with self._file, open(self.path, "rb") as file:

            def line(offset: int) -> bytes:
                file.seek(offset)
                return file.readline()

            offsets, failed = [], []
            for offset in map(int, chain(placed, others)):
                text = line(offset) if offset >= 0 else b""
                if text.endswith(b"\n"):  # an interrupt leaves none, or one cut off
                    offsets.append(offset)
                    if is_failure(text):
                        failed.append(offset)
            write_whole(self.path, map(line, offsets), partial)
            if failed:
                write_whole(self.folder / ERRORS, map(line, failed), partial)
            else:
                (self.folder / ERRORS).unlink(missing_ok=True)

    def _append(self, line: bytes) -> None:
        """Write at the end, where files are opened to be written to."""
        with told_of(self.path):
            while line:
                line = line[self._file.write(line) :]


def is_failure(line: bytes) -> bool:
    record = parse_record(line)
    return record is not None and record.status == "failed"
