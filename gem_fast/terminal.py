"""What commands share: where they print, how they fail, the progress bar."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console()
errors = Console(stderr=True)


def say(text: str, style: str | None = None, *, to: Console = console) -> None:
    """Print a line as it is: names of files are no markup, and a line is never broken."""
    to.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Print an error of usage and leave with status 2."""
    say(f"gem-fast: {message}", "red", to=errors)
    raise typer.Exit(2)


@contextmanager
def short_warnings() -> Iterator[None]:
    """Warnings as a line for users, without the place in the code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        say(f"gem-fast: {message}", "yellow", to=errors)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


class ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        seconds = task.finished_time or task.elapsed
        return Text(f"{task.completed / seconds:.2f} images/s" if seconds else "– images/s")


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        ImagesPerSecond(),
        TimeRemainingColumn(),
        console=errors,
    )
