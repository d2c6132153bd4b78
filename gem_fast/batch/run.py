"""Many files: through the pipeline, each with a record, and nothing that was finished is lost."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..images import EXTENSIONS
from ..outputs import legend_bytes
from ..writing import write_whole
from .folder import LEGEND, check_output, enter, hold
from .options import BatchOptions, parse_options
from .pipeline import Limits, Pipeline
from .processes import in_processes, in_threads
from .progress import Progress
from .records import PARTIAL, SUMMARY, Journal, Record
from .sources import Inputs, Listing, Source, count_in_background
from .work import ImageWork
from .workers import Failure, cores

if TYPE_CHECKING:
    from ..query import Query
    from ..segmenter import Segmenter
    from ..windows import Windows


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        done, failed, kept: number of images; kept are those that an earlier run had finished.
        summary: the file with a line for each image, as `gem_fast.records` reads it.
        reasons: failures by their reason.
        passed_over: a line for each reason for which files or folders were passed over.
        stopped: why the run ended before all images were tried, or None.
    """

    done: int
    failed: int
    kept: int
    summary: Path
    reasons: dict[str, int]
    passed_over: tuple[str, ...]
    stopped: str | None = None


def segment_files(
    model: "Segmenter",
    images: Inputs,
    prompts: Any,
    out: str | os.PathLike,
    *,
    progress: Progress | None = None,
    on_record: Callable[[Record], None] | None = None,
    **options: Any,
) -> Outcome:
    """Segment many image files into a folder.

    Each image gets the files of `Segmentation.save`, below the subfolders of its input, and all of them together one
    `legend.json`. `summary.jsonl` gets a line for each image as soon as it is done, and is in the order of the inputs
    at the end. Images that can't be used are recorded with the reason, in `errors.jsonl` too, and the rest goes on.

    Args:
        model: an engine, such as `gem_fast.load` gives.
        images: files, folders (with subfolders) and glob patterns; see `batch.sources.Listing`.
        prompts: the classes, as for `segment`.
        out: the output folder; made if missing. One run at a time works in it.
        progress: kept up to date, for who watches it from another thread.
        on_record: called with each image's record as it is done.
        **options: fields of `BatchOptions`, such as `resume=True`.

    Raises:
        ValueError: an argument is wrong, there is no image, or the folder is another run's. OSError: the output can't
            be written, such as on a full disk, or an engine's process not started; what was finished is there, and
            `resume` goes on.
    """
    chosen, progress, out = parse_options(options), progress or Progress(), Path(out)
    windows = model.windows(chosen.window, chosen.stride)
    model.check_input(chosen.size, chosen.resize, windows)
    query = model.query(
        prompts,
        background=chosen.background,
        templates=chosen.templates,
        threshold=chosen.threshold,
        logit_scale=chosen.logit_scale,
    )
    _check_any(images)
    check_output(out, resume=chosen.resume, overwrite=chosen.overwrite)
    with hold(out):
        enter(out, describe(model, query, chosen, windows), resume=chosen.resume, overwrite=chosen.overwrite)
        write_whole(out / LEGEND, legend_bytes(query.legend()), out / PARTIAL)
        journal = Journal(out, {kind.name for kind in chosen.kinds}, resume=chosen.resume)
        try:
            return _run(model, query, images, out, chosen, windows, journal, progress, on_record)
        finally:
            model.share_cores(1)  # what engines set may count for all threads
            journal.close()


def _run(
    model: "Segmenter",
    query: "Query",
    images: Inputs,
    out: Path,
    options: BatchOptions,
    windows: "Windows | None",
    journal: Journal,
    progress: Progress,
    on_record: Callable[[Record], None] | None,
) -> Outcome:
    progress.started = time.monotonic()
    listing = Listing(images, journal.finished)
    count_in_background(images, progress)
    work = ImageWork(model, query, options, out, windows)
    processes = options.processes or len(model.devices)
    engines = processes if processes > 1 else model.engines
    limits = Limits(
        batch_size=options.batch_size,
        workers=options.workers or cores(),
        engines=engines,
        images=max(Limits.images, 4 * engines * options.batch_size),
        timeout=options.timeout,
        retries=options.retries,
    )

    make = in_processes if processes > 1 else in_threads
    pipeline = Pipeline(work, make(model, query, windows, options.batch_size), limits, progress)
    stopped = None
    with closing(pipeline.run(_unfinished(listing, journal, progress))) as results:
        for position, source, result in results:
            record = _record(source, result)
            journal.write(position, record)
            progress.count(record.status, None if record.error is None else _reason(record))
            if on_record:
                on_record(record)
            if options.max_errors is not None and progress.failed > options.max_errors:
                stopped = f"stopped, since more than {options.max_errors} images failed"
                break
    return Outcome(
        done=progress.done,
        failed=progress.failed,
        kept=progress.kept,
        summary=out / SUMMARY,
        reasons=dict(progress.reasons.most_common()),
        passed_over=tuple(listing.told()),
        stopped=stopped,
    )


def describe(
    model: "Segmenter", query: "Query", options: BatchOptions, windows: "Windows | None" = None
) -> dict[str, Any]:
    """What `run.json` holds: all that a label depends on, and beside it the versions and the kinds of output."""
    identity = model.identity()
    return {
        **{name: value for name, value in identity.items() if name != "dtype"},
        "prompts": [[each.name, *each.synonyms] for each in query.classes],
        "background": [[each.name, *each.synonyms] for each in query.background],
        "settings": {
            "size": options.size or model.defaults.size,
            "resize": options.resize or ("shorter" if windows else model.usual_resize),
            "threshold": query.threshold,
            "logit_scale": query.logit_scale,
            "templates": list(query.templates),
            "dtype": identity["dtype"],
            "label_size": options.label_size or "photo",
            **({"window": windows.side, "stride": windows.stride} if windows else {}),
        },
        "output": {"format": "files", "kinds": [kind.name for kind in options.kinds]},
        "versions": {"gem_fast": version("gem_fast"), "pillow": version("pillow"), "numpy": version("numpy")},
    }


def _check_any(images: Inputs) -> None:
    """ValueError if there is no image."""
    listing = Listing(images)
    if next(iter(listing), None) is None:
        told = "; ".join(listing.told())
        raise ValueError(
            f"no images found{f' ({told})' if told else ''}; in folders these endings are looked for: "
            f"{', '.join(sorted(EXTENSIONS))}"
        )


def _unfinished(listing: Listing, journal: Journal, progress: Progress) -> Iterator[tuple[int, Source]]:
    """The images to do, with their positions in the inputs."""
    for position, source in enumerate(listing):
        if source.key in journal.finished:
            journal.keep(position, source.key)
            progress.kept += 1
        else:
            yield position, source


def _record(source: Source, result: Any) -> Record:
    if isinstance(result, Failure):
        path = str(source.path)
        error = result.error if result.error.startswith(path) else f"{path}: {result.error}"
        return Record(path, "failed", error)
    return result


def _reason(record: Record) -> str:
    """A failure without what is this image's own: its path, numbers, what stands in brackets."""
    text = (record.error or "").removeprefix(record.image).lstrip(": ")
    return re.sub(r"\d[\d,.×]*", "N", re.split(r" \(|; |: ", text)[0]) or "unknown"
