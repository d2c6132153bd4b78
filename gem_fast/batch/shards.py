"""The output of a run as shards: a file for so many images in the order of the inputs, whole or not there."""

import json
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..writing import whole_file, write_whole
from .options import BatchOptions
from .progress import Progress
from .records import PARTIAL, Journal, Record, reason_of
from .shard_formats import Entry, Legend
from .sources import Listing, Source
from .stores import Spool, Spooled

STATISTICS = ".stats.json"
_OWN = re.compile(r"shard-[0-9]{5,}\.(tar|parquet|coco\.json|stats\.json)")
_LARGEST = 1 << 24  # bytes of statistics


@dataclass(frozen=True)
class _Done:
    """An image of a shard that is not written yet."""

    key: str
    record: Record
    spooled: Spooled | None


class Shards:
    """Output as shards, each written in a thread as soon as its last image is finished.

    A shard is there when its statistics are, and stays as it is then, failures included. Lines of the summary come
    with their shard.

    Attributes:
        store: where workers put an image's files.
        finished: empty: names are given as in the first run.
    """

    def __init__(self, folder: Path, options: BatchOptions, legend: Legend, journal: Journal) -> None:
        assert options.shards
        self._folder, self._form, self._size = folder, options.shards, options.shard_size
        self._kinds, self._legend, self._journal = options.kinds, legend, journal
        self._part = options.share
        self.store = Spool(folder, self._size)
        self.finished: dict[int, int] = {}
        self._open: defaultdict[int, dict[int, _Done]] = defaultdict(dict)
        self._thread = ThreadPoolExecutor(1, "shards")
        self._writing: Future[None] | None = None
        lines: defaultdict[str, array] = defaultdict(lambda: array("q"))
        for offset, record in journal.earlier():
            lines[record.files.get("shard", "")].append(offset)
        self._kept = {name: found for name, offsets in lines.items() if (found := self._whole(name, offsets))}

    def _name(self, shard: int) -> str:
        return f"shard-{shard:05d}{self._form.ending}"

    def _statistics(self, name: str) -> Path:
        return self._folder / (name.removesuffix(self._form.ending) + STATISTICS)

    def _whole(self, name: str, lines: "array[int]") -> "array[int] | None":
        """The lines of a shard that is there as its statistics say: the last, if it was written more than once."""
        if not _OWN.fullmatch(name):
            return None
        try:
            with open(self._statistics(name), "rb") as file:
                told = json.loads(file.read(_LARGEST))
            images, size = int(told["images"]), int(told["bytes"])
            there = size == (self._folder / name).stat().st_size
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return lines[-images:] if there and 0 < images <= len(lines) else None

    def unfinished(self, listing: Listing, progress: Progress) -> Iterator[tuple[int, Source]]:
        """The images to do, with their positions in the inputs."""
        for source in listing:
            shard, place = divmod(source.position, self._size)
            lines = self._kept.get(self._name(shard))
            if lines and place < len(lines):
                self._journal.place(source.position, lines[place])
                progress.kept += 1
            else:
                yield source.position, source

    def add(self, source: Source, result: "Record | Spooled") -> None:
        """An image is finished, or has failed."""
        shard = source.position // self._size
        record, spooled = (result.record, result) if isinstance(result, Spooled) else (result, None)
        record = replace(record, files={"shard": self._name(shard)})
        self._open[shard][source.position] = _Done(source.name, record, spooled)
        if self._writing and self._writing.done():
            self._writing.result()  # a full disk ends the run now, not with the next shard
        if len(self._open[shard]) == self._size:
            self._write_soon(shard)

    def end(self) -> None:
        """All images were tried: what is open is the last shard."""
        for shard in sorted(self._open):
            self._write_soon(shard)
        if self._writing:
            self._writing.result()

    def _write_soon(self, shard: int) -> None:
        if self._writing:
            self._writing.result()
        images = [self._open[shard][position] for position in sorted(self._open[shard])]
        del self._open[shard]
        self._writing = self._thread.submit(self._write, shard, images)

    def _write(self, shard: int, images: list[_Done]) -> None:
        first, partial, path = shard * self._size, self._folder / PARTIAL, self._folder / self._name(shard)

        def entries() -> Iterator[Entry]:
            for position, image in enumerate(images, first):
                number = position * self._part.of + self._part.number - 1
                yield Entry(number, image.key, image.record, image.spooled.contents() if image.spooled else {})

        self._statistics(path.name).unlink(missing_ok=True)
        with whole_file(path, partial) as file:
            self._form.write(file, entries, self._legend, self._kinds)
            size = file.tell()
        for position, image in enumerate(images, first):
            self._journal.write(position, image.record)
        self._journal.sync()
        told = (json.dumps(_counts(images) | {"bytes": size}, indent=1, ensure_ascii=False) + "\n").encode()
        write_whole(self._statistics(path.name), told, partial)
        self.store.remove(shard)

    def close(self) -> None:
        """Leave a whole summary of the shards that are there."""
        self._thread.shutdown()
        self._journal.close(chain.from_iterable(self._kept.values()))  # a run that stops has not listed all of them


def _counts(images: list[_Done]) -> dict[str, Any]:
    """Of a shard: by status, and failures by reason."""
    records = [image.record for image in images]
    status = Counter(record.status for record in records)
    reasons = Counter(reason_of(record) for record in records if record.status == "failed")
    return {
        "images": len(records),
        "status": {name: status[name] for name in ("ok", "failed")},
        "reasons": dict(sorted(reasons.items())),
    }


def own_files(folder: Path) -> Iterator[Path]:
    """The shards that a run left in a folder, and their statistics."""
    return (path for path in folder.glob("shard-*") if _OWN.fullmatch(path.name) and path.is_file())
