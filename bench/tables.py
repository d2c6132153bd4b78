"""Figures as tables: of text on a screen, and the cells that the reports share."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gem_fast.terminal import say

from .growth import growth_lines
from .measure import ratio
from .records import Row, by_group

_FIRST, _LAST = ("provider", "p50 s", "20-80%", "p95 s", "p99 s", "images/s"), ("of ceiling", "MB added", "MB peak")
HEADER = (*_FIRST, "TFLOP/s", "GB/s", *_LAST)
ON_SCREEN = ("provider", "p50 s", "20-80%", "p95 s", "p99 s", "images/s", "TFLOP/s", "GB/s", "of ceiling", "MB added")
NOTES = (
    "Providers of a case were timed in turns, after their outputs were found to agree. Times are medians of "
    "rounds; ratios are medians of the ratios round by round, with their 20% and 80% quantiles. Operations are counted "
    "from shapes, those that the symmetry of p pᵀ saves count as done. The share of the ceiling is the least time at "
    "the rates of a large matrix product and of a copy, measured beside them, over the time."
)
SHORT = ("provider", "p50 s", "20-80%", "images/s", "TFLOP/s", "GB/s", "of ceiling", "MB added")


def print_rows(console: Console, rows: Sequence[Row], columns: Sequence[str] = ON_SCREEN) -> None:
    """A table for each case with a figure, its last column how many times longer the first provider takes."""
    for group, members in by_group(rows).items():
        figures = [row for row in members if row.seconds]
        if not figures:
            continue
        table = Table(*columns, against(figures), title=escape(group), title_justify="left", box=None)
        for row in figures:
            values = dict(zip(HEADER, cells(row), strict=True))
            table.add_row(*(values[name] for name in columns), str(ratio(figures[0].seconds, row.seconds)))
        console.print(table, no_wrap=True)
    for line in growth_lines(rows):
        say(line, to=console)


def against(rows: Sequence[Row]) -> str:
    """The head of the column of ratios."""
    return f"{rows[0].provider} / this"


def cells(row: Row) -> tuple[str, ...]:
    """A row's figures as text, in the order of `HEADER`; a dash for what the file does not say."""
    extra = row.extra

    def shown(name: str, form: str) -> str:
        return "–" if extra.get(name) is None else format(extra[name], form)

    return (
        row.provider,
        digits(row.at(0.5)),
        f"{digits(row.at(0.2))}-{digits(row.at(0.8))}",
        digits(row.at(0.95)),
        digits(row.at(0.99)),
        digits(extra["images_per_second"]) if "images_per_second" in extra else "–",
        shown("tflops", ".3f"),
        shown("gb_per_s", ".2f"),
        shown("share_of_ceiling", ".0%"),
        shown("added_mb", ".0f"),
        shown("peak_mb", ".0f"),
    )


def digits(value: float) -> str:
    """Three digits, and all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
