"""What commands share: where they print, how they fail, what ends them."""

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console

from .text_file import as_utf8


class Terminal(Console):
    """A console whose reader may leave, as `head` does: what it misses changes nothing about the work or its status."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


console = Terminal()
errors = Terminal(stderr=True)


def say(text: str, style: str | None = None, *, to: Console = console) -> None:
    """Print a line as it is: names of files are no markup, a line is never broken, and bytes of names are escaped."""
    to.print(as_utf8(text), style=style, markup=False, highlight=False, soft_wrap=True)


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


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, and SIGHUP too, unless it was ignored at the start, as under `nohup`."""

    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    earlier = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names}
    taken = [number for number, handler in earlier.items() if handler != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        taken = []  # only there can signals be handled
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, earlier[number])
