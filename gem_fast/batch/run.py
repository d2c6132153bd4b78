"""Many files: through the pipeline, each with a record, and nothing that was finished is lost."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cores import cores
from ..images import EXTENSIONS
from ..outputs import legend_bytes
from ..writing import write_whole
from .files import Files
from .folder import check_output, check_parts, enter, hold
from .options import BatchOptions, Part, parse_options
from .pipeline import Limits, Pipeline
from .processes import in_processes, in_threads
from .progress import Progress
from .records import LEGEND, PARTIAL, SUMMARY, Journal, Record, reason_of
from .shards import Shards
from .sources import Checked, Inputs, Listing, Source, count_in_background, held_inputs
from .stores import Spooled
from .work import ImageWork
from .workers import Failure

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

    Each image gets the files of `Segmentation.save`, below the subfolders of its input, or its place in a shard, and
    all of them together one `legend.json`. `summary.jsonl` gets a line for each image as soon as it is done, or its
    shard is, and is in the order of the inputs at the end. Images that can't be used are recorded with the
    reason, in `errors.jsonl` too, and the rest goes on.

    Args:
        model: an engine, such as `gem_fast.load` gives.
        images: files, folders (with subfolders), glob patterns, archives, tables, lists and URLs; see
            `batch.sources.Listing`.
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
    check_parts(out, chosen.share)
    out = chosen.folder(out)
    check_output(out, resume=chosen.resume, overwrite=chosen.overwrite)
    with held_inputs(images) as inputs:
        _check_any(inputs, chosen.share)
        with hold(out):
            asked = describe(model, query, chosen, windows, Listing(inputs).digest() if chosen.shards else None)
            enter(out, asked, resume=chosen.resume, overwrite=chosen.overwrite)
            write_whole(out / LEGEND, legend_bytes(query.legend()), out / PARTIAL)
            with _output(out, query, chosen) as output:
                return _run(model, query, inputs, out, chosen, output, windows, progress, on_record)


@contextmanager
def _output(out: Path, query: "Query", options: BatchOptions) -> Iterator[Files | Shards]:
    """Where results go, with a whole summary at the end; after an error as far as there is room for one."""
    journal = Journal(out, resume=options.resume)
    if options.shards:
        output: Files | Shards = Shards(out, options, query.legend(), journal)
    else:
        output = Files(out, options.kinds, journal)
    try:
        yield output
    except OSError:
        with suppress(OSError):
            output.close()
        raise
    except BaseException:
        output.close()
        raise
    output.close()


def _run(
    model: "Segmenter",
    query: "Query",
    images: Checked,
    out: Path,
    options: BatchOptions,
    output: Files | Shards,
    windows: "Windows | None",
    progress: Progress,
    on_record: Callable[[Record], None] | None,
) -> Outcome:
    progress.started = time.monotonic()
    listing = Listing(images, output.finished, options.share)
    count_in_background(images, options.share, progress)
    work = ImageWork(model, query, options, output.store, windows)
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

    asked = model, query, windows, options.batch_size
    make_encode = in_processes(*asked, options.timeout) if processes > 1 else in_threads(*asked)
    pipeline = Pipeline(work, make_encode, limits, progress)
    stopped = None
    try:
        with closing(pipeline.run(output.unfinished(listing, progress))) as results:
            for _, source, result in results:
                kept = failed(source, result) if isinstance(result, Failure) else result
                output.add(source, kept)
                record = kept.record if isinstance(kept, Spooled) else kept
                progress.count(record.status, None if record.error is None else reason_of(record))
                if on_record:
                    on_record(record)
                if options.max_errors is not None and progress.failed > options.max_errors:
                    stopped = f"stopped, since more than {options.max_errors} images failed"
                    break
        if stopped is None:
            output.end()
    finally:
        model.share_cores(1)  # what engines set may count for all threads
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
    model: "Segmenter",
    query: "Query",
    options: BatchOptions,
    windows: "Windows | None" = None,
    inputs: str | None = None,
) -> dict[str, Any]:
    """What `run.json` holds: all that a label depends on, and beside it the versions and the kinds of output."""
    identity = model.identity()
    output: dict[str, Any] = {"format": options.format, "kinds": [kind.name for kind in options.kinds]}
    if options.shards:
        output |= {"shard_size": options.shard_size, "overlay": f"{options.overlay_format} {options.overlay_size}"}
    elif options.overlays:
        output["overlay_size"] = options.overlay_size
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
        "output": output,
        "part": options.part,
        "inputs": inputs,
        "versions": {"gem_fast": version("gem_fast"), "pillow": version("pillow"), "numpy": version("numpy")},
    }


def _check_any(images: Checked, part: Part) -> None:
    """ValueError if there is no image."""
    listing = Listing(images, part=part)
    if next(iter(listing), None) is None:
        told = "; ".join(listing.told())
        raise ValueError(
            f"no images found{f' ({told})' if told else ''}; in folders these endings are looked for: "
            f"{', '.join(sorted(EXTENSIONS))}"
        )


def failed(source: Source, failure: Failure) -> Record:
    error = failure.error
    return Record(source.image, "failed", error if error.startswith(source.image) else f"{source.image}: {error}")
