"""Where the files of an image go, in the worker that made them: each by itself, or into what will be a shard."""

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..outputs import OutputKind
from ..writing import told_of, write_whole
from .records import PARTIAL, Record
from .sources import Source


class Store(Protocol):
    def keep(self, source: Source, record: Record, contents: Mapping[str, bytes]) -> Any:
        """Store an image's files, by kind; what is returned is handed to the run's output.

        Raises:
            OutputError: nothing more can be written. OSError: one of them can't be.
        """


@dataclass(frozen=True)
class FileStore:
    """Each file by itself, below the output folder."""

    folder: Path
    kinds: tuple[OutputKind, ...]

    def keep(self, source: Source, record: Record, contents: Mapping[str, bytes]) -> Record:
        files = {kind.name: source.name + kind.ending for kind in self.kinds}
        for kind, name in files.items():
            write_whole(self.folder / name, contents[kind], self.folder / PARTIAL, sync=False)
        return replace(record, files=files, key=f"{source.key:016x}")


@dataclass(frozen=True)
class Spooled:
    """An image's record, and where its files lie one after another: in which spool, from where, and their sizes."""

    record: Record
    spool: Path
    offset: int
    sizes: Mapping[str, int]

    def contents(self) -> dict[str, bytes]:
        with open(self.spool, "rb") as file:
            file.seek(self.offset)
            return {kind: file.read(size) for kind, size in self.sizes.items()}


@dataclass(frozen=True)
class Spool:
    """Files of a shard's images one after another as they come, a spool for each worker."""

    folder: Path
    shard_size: int

    def keep(self, source: Source, record: Record, contents: Mapping[str, bytes]) -> Spooled:
        name = f"{source.position // self.shard_size}-{os.getpid()}-{threading.get_ident()}.spool"
        path = self.folder / PARTIAL / name
        with told_of(path), open(path, "ab", buffering=0) as file:
            offset, rest = file.tell(), b"".join(contents.values())
            while rest:
                rest = rest[file.write(rest) :]
        return Spooled(record, path, offset, {kind: len(content) for kind, content in contents.items()})

    def remove(self, shard: int) -> None:
        """Remove the spools of a shard."""
        for path in self._spools(shard):
            path.unlink()

    def _spools(self, shard: int) -> Iterator[Path]:
        return (self.folder / PARTIAL).glob(f"{shard}-*.spool")
