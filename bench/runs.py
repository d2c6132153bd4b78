"""What `gem-fast bench` does: measure a sweep, or take up runs from their files; then tell and write what was found."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from gem_fast.terminal import say
from gem_fast.writing import write_whole

from . import sweep
from .compare import Change, compare
from .machine import machine, machine_line
from .plots import plots, require_matplotlib, to_png
from .records import document, merged, read_document, read_rows, write_document
from .tables import SHORT, markdown, print_changes, print_rows


@dataclass(frozen=True)
class Files:
    """What is to be written of a run: its JSON, its tables as Markdown, a folder of plots.

    Raises:
        ValueError: what a file is to be made with is not installed; raised before anything is measured.
    """

    json: Path | None = None
    markdown: Path | None = None
    plots: Path | None = None

    def __post_init__(self) -> None:
        if self.plots:
            require_matplotlib()

    def write(self, content: dict[str, Any]) -> None:
        """All of them, of a run's JSON document."""
        if self.json:
            write_document(self.json, content)
        if self.markdown:
            write_whole(self.markdown, markdown(content).encode())
        if self.plots:
            figures = dict(plots(read_rows(content)))
            if not figures:
                raise ValueError("nothing to plot: plots need several sizes of `gem-fast bench`, or --waterfall")
            for name, figure in figures.items():
                write_whole(self.plots / f"{name}.png", to_png(figure))


def measure_run(asked: sweep.Sweep, files: Files, console: Console, progress: Console, waterfall: bool = False) -> bool:
    """Measure, print the tables and write the files, JSON after each figure; whether every provider has a figure.

    Args:
        progress: where each figure is told as soon as it is there.
        waterfall: also measure the steps from eager code to the engine.

    Raises:
        ValueError, ProviderError, OSError: nothing could be measured, or a file not written.
    """

    def content(outcome: sweep.Outcome) -> dict[str, Any]:
        return document(outcome.rows, facts, command=command, ceilings=outcome.ceilings)

    def tell(so_far: sweep.Outcome) -> None:
        row = so_far.rows[-1]
        found = f"{row.at(0.5):.3g} s" if row.seconds else f"no figure: {row.extra['refused']}"
        say(f"{row.name}: {found}", to=progress)
        if files.json:
            write_document(files.json, content(so_far))

    facts, command = machine(asked.threads), shlex.join(["gem-fast", *sys.argv[1:]])
    say(machine_line(facts), to=console)
    steps = sweep.waterfall("cpu" if asked.device == "cpu" else "triton") if waterfall else ()
    outcome = sweep.run(asked, steps=steps, tell=tell)
    print_rows(console, outcome.rows)
    files.write(content(outcome))
    return all(row.seconds for row in outcome.rows)


def compare_runs(
    before: Path, after: Path, console: Console, *, tolerance: float = 0.05, relative_to: str | None = None
) -> list[Change]:
    """Print what changed between two runs; ValueError if they can't be compared."""
    rows = [read_rows(read_document(path)) for path in (before, after)]
    changes = compare(rows[0], rows[1], tolerance=tolerance, relative_to=relative_to)
    print_changes(console, changes)
    return changes


def report_runs(runs: Sequence[Path], files: Files, console: Console) -> None:
    """Print and write one report of several runs of one machine; ValueError if they are none, OSError for a file."""
    content = merged([read_document(path) for path in runs])
    print_rows(console, read_rows(content), SHORT)
    files.write(content)
