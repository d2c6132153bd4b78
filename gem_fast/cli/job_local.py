"""`gem-fast segment` on this machine."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import GraphError
from ..terminal import ended_by_signals, errors, fail, say, short_warnings
from .job import Job
from .progress import Style, shown

if TYPE_CHECKING:
    from gem_fast.batch import Outcome, Progress
    from gem_fast.batch.records import Record

_MOST_SHOWN = 20  # failures on the terminal


def run_here(job: Job, style: Style, stats: Path | None) -> None:
    """Segment, tell how it went, and leave with its status."""
    try:
        with ended_by_signals(), short_warnings():
            _run(job, style, stats)
    except KeyboardInterrupt:
        say(f"interrupted; what was finished is in {job.out}, and --resume goes on from there", to=errors)
        raise typer.Exit(130) from None


def _run(job: Job, style: Style, stats: Path | None) -> None:
    from gem_fast.batch import BatchOptions, Progress, segment_files
    from gem_fast.batch.folder import check_output, check_parts
    from gem_fast.batch.records import ERRORS
    from gem_fast.batch.sources import check_inputs

    progress, failures = Progress(), list[str]()

    def note(record: "Record") -> None:
        if record.error is not None and len(failures) < _MOST_SHOWN:
            failures.append(record.error)

    try:
        classes, options = job.classes(), BatchOptions(**job.options)
        # What is mistyped should not cost the loading of a model.
        images = check_inputs(job.images)
        check_parts(job.out, options.share)
        check_output(options.folder(job.out), resume=options.resume, overwrite=options.overwrite)
        model = job.load()
        with shown(progress, style):
            outcome = segment_files(model, images, classes, job.out, progress=progress, on_record=note, **job.options)
    except OSError as error:
        fail(f"{error}{_kept(job.out, progress)}")
    except (ValueError, GraphError) as error:
        fail(str(error))
    finally:
        if stats and progress.started is not None:
            _write(stats, job.out, progress)
    # Of a shard that a stopped run left open there is no line.
    tell(outcome, progress, failures, None if outcome.stopped and options.shards else outcome.summary.parent / ERRORS)
    if outcome.stopped or outcome.failed:
        raise typer.Exit(1)


def _write(stats: Path, out: Path, progress: "Progress") -> None:
    """What was told last, as JSON; leave with an error if it can't be written."""
    from gem_fast.writing import write_whole

    try:
        write_whole(stats, (json.dumps(progress.told(), indent=1) + "\n").encode())
    except OSError as error:
        fail(f"--stats {stats} can't be written: {error.strerror}{_kept(out, progress)}")


def _kept(out: Path, progress: "Progress") -> str:
    """What a run that could not go on leaves."""
    return f"; what was finished is in {out}, and --resume goes on from there" if progress.done else ""


def tell(outcome: "Outcome", progress: "Progress", failures: list[str], where: Path | None) -> None:
    """A run's end in lines: with the first failures, and the file that has all of them if there is one."""
    kept = f", {outcome.kept:,} kept from the earlier run" if outcome.kept else ""
    done = f"{outcome.done:,} image{'s' * (outcome.done != 1)} segmented into {outcome.summary.parent}{kept}"
    say(f"{done} ({progress.images_per_second:.2f} images/s)")
    for line in outcome.passed_over:
        say(line, "yellow", to=errors)
    if outcome.stopped:
        say(outcome.stopped, "red", to=errors)
    if not outcome.failed:
        return
    for error in failures:
        say(f"failed: {error}", "red", to=errors)
    if outcome.failed > len(failures):
        for reason, count in outcome.reasons.items():
            say(f"failed: {count:,} × {reason}", "red", to=errors)
    counted = f"{outcome.failed:,} of {outcome.done + outcome.failed:,} images failed"
    say(f"{counted}; all of them are in {where}" if where else counted, "red", to=errors)
