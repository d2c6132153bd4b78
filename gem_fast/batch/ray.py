"""Many files on a Ray cluster: the local run's stages in Ray Data's actors. Tested with Ray 2.60.

read the list (Parquet) → actors: prepare, encode, finish → write (Parquet or tar), a row an image, failures too
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine import encoder
from ..outputs import legend_bytes
from ..text_file import as_utf8
from ..writing import whole_file, write_whole
from .contents import Refused, Remote, Stretch
from .folder import RunError, check_output, check_parts, enter, hold
from .options import BatchOptions, parse_options
from .pipeline import decoded_sizes, scores_of
from .records import LEGEND, PARTIAL, Record
from .remote import is_url
from .run import describe, failed
from .shard_formats import Entry, parquet_schema, row_of, tar_files, tar_key
from .sources import Inputs, Listing, Source, held_inputs
from .tables.opening import Row
from .tar import members
from .work import ImageWork
from .workers import Failure
from .workers import describe as told

if TYPE_CHECKING:
    from ..query import Query
    from ..segmenter import Segmenter

ROWS = "rows"  # folder of the tables or archives that Ray writes
FORMATS = ("parquet", "tar")
_KEYS = {"parquet": "id", "tar": "__key__"}  # of each row, as the checkpoint knows it
_INPUTS = "inputs"  # folder of the list that Ray reads
_LISTED = 10_000  # images of a file of the list
_CONTENTS = {each.__name__: each for each in (Stretch, Remote, Refused, Row)}


@dataclass(frozen=True)
class RayOutcome:
    """How a run ended: its rows by status, and the folder of its tables or archives."""

    done: int
    failed: int
    rows: Path


def segment_on_ray(
    load: "Callable[[], Segmenter]",
    images: Inputs,
    prompts: Any,
    out: str | Path,
    *,
    address: str | None = None,
    checkpoint: str | None = None,
    actors: int | None = None,
    gpus: float = 0,
    **options: Any,
) -> RayOutcome:
    """Segment many image files by actors of a Ray cluster, into Parquet tables or tar archives.

    Text embeddings are made once, here; each actor loads the model once. Rows are those of `--format parquet` or the
    files of `--format tar`, in no order. A cluster that Ray is connected to already is taken.

    Args:
        load: gives the engine, here and in each actor.
        images, prompts: as for `segment_files`.
        out: the output folder, which all nodes reach under this name.
        address: of the cluster, as for `ray.init`; None for this machine.
        checkpoint: a folder or URL that all nodes reach; rows that are in it are not computed again.
        actors: at most so many; by default as many as leave Ray two CPUs, or one a GPU.
        gpus: that each actor takes.
        **options: fields of `BatchOptions`; `format` is `"parquet"` (default) or `"tar"`.

    Raises:
        ValueError: an argument is wrong, or the folder is another run's. OSError: the output can't be written.
    """
    try:
        import ray
    except ImportError:
        raise ValueError('--engine ray needs Ray: pip install "gem_fast[ray]"') from None
    chosen, out = parse_options({"format": "parquet", **options}), Path(out).resolve()
    if chosen.format not in FORMATS:
        raise ValueError(f"--engine ray writes --format {' or '.join(FORMATS)}, not {chosen.format}")
    if chosen.resume and checkpoint is None:
        raise ValueError("--resume with --engine ray goes on from a --checkpoint: give the one of the earlier run")
    check_parts(out, chosen.share)
    out = chosen.folder(out)
    check_output(out, resume=chosen.resume, overwrite=chosen.overwrite)
    model = load()
    windows = model.windows(chosen.window, chosen.stride)
    model.check_input(chosen.size, chosen.resize, windows)
    asked = {name: getattr(chosen, name) for name in ("background", "templates", "threshold", "logit_scale")}
    query = model.query(prompts, **asked)
    with held_inputs(images) as inputs, hold(out):
        run = describe(model, query, chosen, windows, Listing(inputs).digest())
        run["output"] |= {"engine": "ray"}
        enter(out, run, resume=chosen.resume, overwrite=chosen.overwrite)
        if chosen.overwrite:
            shutil.rmtree(out / ROWS, ignore_errors=True)
        write_whole(out / LEGEND, legend_bytes(query.legend()), out / PARTIAL)
        if not chosen.resume or not (out / _INPUTS).exists():
            write_list(Listing(inputs, part=chosen.share), out)
        if not ray.is_initialized():
            ray.init(address=address, include_dashboard=False, log_to_driver=False)
        _compute(load, query, chosen, out, checkpoint, actors, gpus)
        return outcome(out)


def write_list(listing: Listing, out: Path) -> None:
    """The images as tables that Ray reads: one file for so many, each with a key that no other has.

    Raises:
        RunError: there is no image.
    """

    shutil.rmtree(out / _INPUTS, ignore_errors=True)
    rows: list[dict[str, Any]] = []
    count = 0
    for count, source in enumerate(listing, 1):
        rows.append(to_row(source))
        if len(rows) == _LISTED:
            _write(out, count, rows)
            rows = []
    if rows:
        _write(out, count, rows)
    if not count:
        raise RunError(f"no images found ({'; '.join(listing.told())})")


def _write(out: Path, count: int, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with whole_file(out / _INPUTS / f"{count:09d}.parquet", out / PARTIAL) as file:
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=256)


def to_row(source: Source) -> dict[str, Any]:
    """A source as a row: its `id` is its place in the list."""
    where: dict[str, Any] = asdict(source.content) if source.content else {}
    for name in {"file", "table"} & set(where):
        where[name] = where[name] if is_url(where[name]) else os.path.abspath(where[name])
    return {
        "id": f"{source.position:09d}",
        "__key__": as_utf8(tar_key(source.name)),
        "path": os.fsencode(source.path.absolute()),
        "name": os.fsencode(source.name),
        "content": json.dumps(where and [type(source.content).__name__, where]),
    }


def to_source(row: dict[str, Any]) -> Source:
    """The source of a row that `to_row` made."""
    content = json.loads(row["content"])
    path, name = (os.fsdecode(row[each]) for each in ("path", "name"))
    where = _CONTENTS[content[0]](**content[1]) if content else None
    return Source(Path(path), name, 0, where, int(row["id"]))


def _compute(
    load: "Callable[[], Segmenter]",
    query: "Query",
    options: BatchOptions,
    out: Path,
    checkpoint: str | None,
    actors: int | None,
    gpus: float,
) -> None:
    import ray
    from ray.data.checkpoint import CheckpointConfig

    cpus = ray.cluster_resources().get("CPU", 1.0)
    most = actors or max(1, int(ray.cluster_resources().get("GPU", 0) / gpus if gpus else cpus - 2))
    context = ray.data.DataContext.get_current()
    earlier = context.checkpoint_config
    if checkpoint is not None:
        key = _KEYS[options.format]
        context.checkpoint_config = CheckpointConfig(key, str(checkpoint), delete_checkpoint_on_success=False)
    try:
        done = ray.data.read_parquet(str(out / _INPUTS)).map_batches(
            Actor,
            fn_constructor_kwargs={"load": load, "query": query, "options": options},
            batch_size=4 * options.batch_size,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
            # Actors that held every CPU would leave none for reading, nor for the checkpoint's own actor.
            num_cpus=min(1.0, max(cpus - 2, cpus / 2) / most),
            num_gpus=gpus or None,
        )
        if options.format == "tar":
            done.write_webdataset(str(out / ROWS), encoder=None, mode="append")
        else:
            done.write_parquet(str(out / ROWS), mode="append", max_rows_per_file=options.shard_size)
    finally:
        context.checkpoint_config = earlier


class _InMemory:
    """A store that hands on what it is given."""

    def keep(self, source: Source, record: Record, contents: Any) -> Entry:
        return Entry(source.position, source.name, record, contents)


class Actor:
    """An engine in a Ray actor: a table of sources to a table of their rows."""

    def __init__(self, load: "Callable[[], Segmenter]", query: "Query", options: BatchOptions) -> None:
        model = load()
        windows = model.windows(options.window, options.stride)
        self._work = ImageWork(model, query, options, _InMemory(), windows)
        self._encode = encoder(model, query, windows, options.batch_size)
        self._format, self._kinds = options.format, options.kinds
        self._schema = row_schema(options)
        self._batch_size = options.batch_size

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        return pa.Table.from_pylist(list(self.rows(map(to_source, batch.to_pylist()))), self._schema)

    def rows(self, sources: Iterable[Source]) -> Iterator[dict[str, Any]]:
        """A row of each source, by groups that share a shape."""
        groups: dict[Any, list[tuple[Source, Any, np.ndarray]]] = {}
        for source in sources:
            try:
                held, pixels, shape = self._work.prepare(source, {})
            except Exception as error:  # one image must never end a run
                yield self._row(source, Failure(told(error)))
                continue
            group = groups.setdefault((pixels.shape, shape), [])
            group.append((source, held, pixels))
            if len(group) == self._batch_size:
                yield from self._encoded(groups.pop((pixels.shape, shape)), shape)
        for (_, shape), group in groups.items():
            yield from self._encoded(group, shape)

    def _encoded(self, group: list[tuple[Source, Any, np.ndarray]], shape: tuple[int, int]) -> Iterator[dict[str, Any]]:
        sizes = decoded_sizes(held for _, held, _ in group)
        scores = scores_of(self._encode, np.stack([pixels for *_, pixels in group]), shape, sizes)
        for (source, held, _), each in zip(group, scores, strict=True):
            try:
                yield self._row(source, each if isinstance(each, Failure) else self._work.finish(held, each, {}))
            except Exception as error:
                yield self._row(source, Failure(told(error)))

    def _row(self, source: Source, result: "Entry | Failure") -> dict[str, Any]:
        if isinstance(result, Failure):
            result = Entry(source.position, source.name, failed(source, result), {})
        if self._format == "tar":
            files = {ending[1:]: content for ending, content in tar_files(result, self._kinds).items()}
            return {"__key__": as_utf8(tar_key(source.name)), **files}
        return {"id": f"{source.position:09d}", **row_of(result)}


def row_schema(options: BatchOptions) -> Any:
    """The columns of what an actor gives: of Parquet, or the files of a tar by their endings."""
    import pyarrow as pa

    if options.format == "parquet":
        return parquet_schema(options.kinds, ["id"])
    endings = [kind.ending[1:] for kind in options.kinds]
    return pa.schema([("__key__", pa.string()), *((ending, pa.binary()) for ending in (*endings, "json"))])


def outcome(out: Path) -> RayOutcome:
    """What the tables or archives in an output folder say."""
    import pyarrow.dataset as ds

    if archives := sorted((out / ROWS).glob("*.tar")):
        told = Counter(status for path in archives for status in statuses(path))
        return RayOutcome(told["ok"], told["failed"], out / ROWS)
    errors = ds.dataset(out / ROWS, format="parquet").to_table(columns=["error"])["error"]
    return RayOutcome(errors.null_count, len(errors) - errors.null_count, out / ROWS)


def statuses(archive: Path) -> Iterator[str]:
    """Of the images in a tar archive of a run."""
    with archive.open("rb") as file:
        for member in members(file):
            if member.name.endswith(".json"):
                file.seek(member.offset)
                yield json.loads(file.read(member.size))["status"]
