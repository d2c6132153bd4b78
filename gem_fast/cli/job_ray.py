"""`gem-fast segment --engine ray`."""

from typing import Any

import typer

from ..terminal import ended_by_signals, errors, fail, say, short_warnings
from .job import Job


def run_on_ray(job: Job, **cluster: Any) -> None:
    """Segment on a cluster, tell how it went, and leave with its status.

    Args:
        job: what is asked.
        **cluster: address, checkpoint, actors and gpus of `segment_on_ray`.
    """
    from gem_fast.batch.ray import segment_on_ray

    try:
        with ended_by_signals(), short_warnings():
            outcome = segment_on_ray(job.load, job.images, job.classes(), job.out, **job.options, **cluster)
    except KeyboardInterrupt:
        say("interrupted; with --checkpoint, --resume goes on from there", to=errors)
        raise typer.Exit(130) from None
    except (OSError, ValueError) as error:
        fail(str(error))
    say(f"{outcome.done:,} image{'s' * (outcome.done != 1)} segmented into {outcome.rows}")
    if outcome.failed:
        say(f"{outcome.failed:,} failed: their rows have an error", "red", to=errors)
        raise typer.Exit(1)
