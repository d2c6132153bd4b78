"""How a shard is written: tar, Parquet or COCO. What is written depends on its images and their order alone."""

import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np

from ..outputs import HEATMAPS, LABELS, OutputKind
from ..text_file import as_utf8
from .records import Record
from .tables.parquet import OWN

_ROWS, _ROW_BYTES = 1000, 1 << 26  # of a Parquet row group


@dataclass(frozen=True)
class Entry:
    """An image of a shard.

    Attributes:
        number: from 0 on, another for each image of all parts of a run.
        key: names it within the run.
        record: as in `summary.jsonl`.
        contents: its files by kind; none if it failed.
    """

    number: int
    key: str
    record: Record
    contents: Mapping[str, bytes]


Entries = Callable[[], Iterator[Entry]]
Legend = Mapping[str, Mapping[str, str]]
Kinds = tuple[OutputKind, ...]


@dataclass(frozen=True)
class ShardFormat:
    """A format of shards.

    Attributes:
        name: as `--format` has it.
        ending: of its shards.
        kinds: what it holds of an image, given all that was asked for.
        write: to an open file, given its entries, as often as they are asked for, the run's legend, and the kinds.
        needs: a module, and the extra that has it.
    """

    name: str
    ending: str
    kinds: Callable[[Kinds], Kinds]
    write: Callable[[BinaryIO, Entries, Legend, Kinds], None]
    needs: tuple[str, str] | None = None

    def check(self) -> None:
        """ValueError if what it needs is not installed."""
        if self.needs:
            module, extra = self.needs
            try:
                import_module(module)
            except ImportError:
                raise ValueError(f'--format {self.name} needs {module}: pip install "gem_fast[{extra}]"') from None


def _write_tar(file: BinaryIO, entries: Entries, legend: Legend, kinds: Kinds) -> None:
    """An image after another, in webdataset's layout."""
    for entry in entries():
        for ending, content in tar_files(entry, kinds).items():
            _add(file, tar_key(entry.key) + ending, content)
    file.write(bytes(2 * tarfile.BLOCKSIZE))


def tar_files(entry: Entry, kinds: Kinds) -> dict[str, bytes]:
    """The files of an image by their endings, the last one its record as JSON."""
    told = {"key": entry.key, **asdict(entry.record)}
    del told["files"]
    line = json.dumps(told, ensure_ascii=False).encode(errors="backslashreplace")
    files = {kind.ending: entry.contents[kind.name] for kind in kinds} if entry.contents else {}
    return {**files, ".json": line}


def _add(file: BinaryIO, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    file.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    file.write(content)
    file.write(bytes(-len(content) % tarfile.BLOCKSIZE))


def tar_key(key: str) -> str:
    """The key without dots in its last part, where webdataset would end it."""
    folder, slash, name = key.rpartition("/")
    return folder + slash + name.replace("%", "%25").replace(".", "%2E")


def _write_parquet(file: BinaryIO, entries: Entries, legend: Legend, kinds: Kinds) -> None:
    """A row an image: key, path, height, width, labels (PNG), areas, error, and heat maps where they were asked for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema(kinds).with_metadata({OWN: json.dumps(legend, ensure_ascii=False).encode(errors="replace")})
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer:
        rows: list[dict[str, Any]] = []
        nbytes = 0
        for entry in entries():
            rows.append(row_of(entry))
            nbytes += sum(map(len, entry.contents.values()))
            if len(rows) >= _ROWS or nbytes >= _ROW_BYTES:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows, nbytes = [], 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))


def parquet_schema(kinds: Kinds, more: Sequence[str] = ()) -> Any:
    """The columns of a Parquet shard, behind other columns of text."""
    import pyarrow as pa

    return pa.schema(
        [
            *((name, pa.string()) for name in (*more, "key", "path")),
            *((name, pa.int32()) for name in ("height", "width")),
            *((kind.name, pa.binary()) for kind in kinds),
            ("areas", pa.map_(pa.string(), pa.float64())),
            ("error", pa.string()),
        ]
    )


def row_of(entry: Entry) -> dict[str, Any]:
    """A row of a Parquet shard."""
    record = entry.record
    return {
        "key": as_utf8(entry.key),
        "path": as_utf8(record.image),
        "height": record.height,
        "width": record.width,
        **entry.contents,
        "areas": list(record.areas.items()),
        "error": None if record.error is None else as_utf8(record.error),
    }


def _write_coco(file: BinaryIO, entries: Entries, legend: Legend, kinds: Kinds) -> None:
    """COCO's detection format: an annotation for each class of an image, its mask run-length encoded."""
    classes = [{"id": int(label), "name": each["name"]} for label, each in legend.items() if int(label)]
    file.write(b'{"categories": ' + _json(classes) + b',\n"images": [')
    done = (entry for entry in entries() if entry.record.status == "ok")
    _write_list(file, (_json(_coco_image(entry)) for entry in done))
    file.write(b'],\n"annotations": [')
    _write_list(file, (line for entry in entries() for line in _coco_lines(entry, len(classes))))
    file.write(b"]}\n")


def _coco_image(entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {"id": entry.number + 1, "file_name": record.image, "height": record.height, "width": record.width}


def _coco_lines(entry: Entry, classes: int) -> Iterator[bytes]:
    """Annotations as `_annotations` left them, each a line, with their numbers."""
    for line in entry.contents.get("annotations", b"").splitlines():
        category = json.loads(line[: line.index(b",")] + b"}")["category_id"]
        numbers = {"id": entry.number * classes + category, "image_id": entry.number + 1}
        yield _json(numbers)[:-1] + b", " + line[1:]


def _write_list(file: BinaryIO, lines: Iterable[bytes]) -> None:
    for index, line in enumerate(lines):
        file.write((b",\n" if index else b"\n") + line)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")


def _annotations(result: Any) -> bytes:
    """A line for each class that an image shows: mask, bounding box, area, and the mean confidence of its pixels."""
    from pycocotools import mask

    labels, confidence, lines = result.labels, result.confidence, []
    for category in np.unique(labels[labels > 0]).tolist():
        area = labels == category
        coded = mask.encode(np.asfortranarray(area, np.uint8))
        line = {
            "category_id": category,
            "segmentation": {"size": list(area.shape), "counts": coded["counts"].decode("ascii")},
            "bbox": mask.toBbox(coded).tolist(),
            "area": int(mask.area(coded)),
            "score": round(float(confidence[area].mean(dtype=np.float64)), 6),
            "iscrowd": 0,
        }
        lines.append(json.dumps(line))
    return "\n".join(lines).encode()


ANNOTATIONS = OutputKind("annotations", ".annotations.json", _annotations, by_scores=True)


def _labels_and_heatmaps(kinds: Kinds) -> Kinds:
    return tuple(kind for kind in kinds if kind in (LABELS, HEATMAPS))


SHARD_FORMATS = {
    each.name: each
    for each in (
        ShardFormat("tar", ".tar", lambda kinds: kinds, _write_tar),
        ShardFormat("parquet", ".parquet", _labels_and_heatmaps, _write_parquet, ("pyarrow", "parquet")),
        ShardFormat("coco", ".coco.json", lambda _: (ANNOTATIONS,), _write_coco, ("pycocotools", "coco")),
    )
}
FORMATS = ("files", *SHARD_FORMATS)
