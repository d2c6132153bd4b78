"""How `gem-fast segment` tells what a run does: a bar on a terminal, a plain line now and then elsewhere, or JSON."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..terminal import errors, say

if TYPE_CHECKING:
    from gem_fast.batch.progress import Progress

PLAIN_SECONDS = 30.0  # between plain lines; the first comes sooner
_FIRST = 5.0


class Style(str, Enum):
    auto = "auto"
    bar = "bar"
    plain = "plain"
    json = "json"
    none = "none"


@contextmanager
def shown(progress: "Progress", style: Style) -> Iterator[None]:
    """Show how a run goes on while the block runs, on the standard error."""
    if style is Style.auto:
        style = Style.bar if errors.is_terminal else Style.plain
    if style is Style.none:
        yield
        return
    bar = _bar() if style is Style.bar else nullcontext()
    with bar as drawn:
        show: Callable[[], None] = {
            Style.bar: lambda: _update(drawn, progress),
            Style.plain: lambda: say(plain_line(progress), to=errors),
            Style.json: lambda: say(json.dumps(progress.told()), to=errors),
        }[style]
        first, later = (_FIRST, PLAIN_SECONDS) if style is Style.plain else (0.2, 0.2 if style is Style.bar else 1.0)
        ended = threading.Event()
        thread = threading.Thread(target=_repeat, args=(show, first, later, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            if style is not Style.plain:  # the end of a run has a line of its own
                show()


def _repeat(show: Callable[[], None], first: float, later: float, ended: threading.Event) -> None:
    wait = first
    while not ended.wait(wait):
        show()
        wait = later


def plain_line(progress: "Progress") -> str:
    """`123 of 1,000 images, 4.50 images/s, 2 failed, about 3 min left`."""
    seen = progress.done + progress.failed + progress.kept
    of = "" if progress.total is None else f" of {progress.total:,}"
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    left = "" if progress.seconds_left is None else f", about {duration(progress.seconds_left)} left"
    return f"{seen:,}{of} images, {progress.images_per_second:.2f} images/s{failed}{left}"


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    bar = Bar(*columns, console=errors)
    bar.add_task("segmenting", total=None, rate="– images/s")
    return bar


def _update(bar: Any, progress: "Progress") -> None:
    seen = progress.done + progress.failed + progress.kept
    (task,) = bar.task_ids
    bar.update(task, total=progress.total, completed=seen, rate=f"{progress.images_per_second:.2f} images/s")
