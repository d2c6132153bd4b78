"""Figures as tables, on a screen and as Markdown, and how time grows with the size of the input."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gem_fast.terminal import say

from .compare import Change
from .machine import machine_line
from .measure import ratio
from .records import Row, by_group, read_rows

_TIMES, _RATES = ("p50 s", "20-80%", "p95 s", "p99 s"), ("images/s", "TFLOP/s", "GB/s", "of ceiling")
HEADER = ("provider", *_TIMES, *_RATES, "MB added", "MB peak")
SHORT = ("provider", "p50 s", "20-80%", "images/s", "TFLOP/s", "GB/s", "of ceiling", "MB added")
NOTES = (
    "Providers of a case were timed in turns, after their outputs were found to agree. Times are medians of "
    "rounds; ratios are medians of the ratios round by round, with their 20% and 80% quantiles. Operations are counted "
    "from shapes, those that the symmetry of p pᵀ saves count as done. The share of the ceiling is the least time at "
    "the rates of a large matrix product and of a copy, measured beside them, over the time."
)


def print_rows(console: Console, rows: Sequence[Row], columns: Sequence[str] = HEADER[:-1]) -> None:
    """A table for each case with a figure, its last column how many times longer the first provider takes."""
    for group, members in by_group(rows).items():
        figures = [row for row in members if row.seconds]
        if not figures:
            continue
        table = Table(*columns, against(figures), title=escape(group), title_justify="left", box=None)
        for row in figures:
            values = dict(zip(HEADER, cells(row), strict=True))
            table.add_row(*(values[name] for name in columns), str(ratio(figures[0].seconds, row.seconds)))
        _whole(table, console)
    for line in growth_lines(rows):
        say(line, to=console)


def print_changes(console: Console, changes: Sequence[Change]) -> None:
    """A line for each benchmark of two runs, coloured by its verdict."""
    table = Table("benchmark", "after / before", "20-80%", "", box=None)
    colours = {"slower": "red", "faster": "green", "same": "default"}
    for change in changes:
        span = f"{change.low:.3f}-{change.high:.3f}"
        table.add_row(escape(change.name), f"{change.ratio:.3f}", span, change.verdict, style=colours[change.verdict])
    _whole(table, console)


def _whole(table: Table, console: Console) -> None:
    """Print a table wider than the terminal if need be: a figure cut to its width would be none."""
    Console(file=console.file, width=max(console.width, 170)).print(table, no_wrap=True)


def markdown(content: dict[str, Any]) -> str:
    """Machine, commands and a table for each case of a run's JSON document."""
    rows, own = read_rows(content), content.get("gem_fast", {})
    facts = content["machine_info"]
    lines = ["# gem_fast benchmark", ""]
    if "instruction_sets" in facts:
        lines += [f"{machine_line(facts)}; {content['datetime'][:10]}.", ""]
    if own.get("command"):
        lines += ["```sh", own["command"], "```", ""]
    lines += [NOTES, ""]
    for group, members in by_group(rows).items():
        body = [(*cells(row), str(ratio(members[0].seconds, row.seconds))) for row in members]
        lines += [f"## {group}", "", *markdown_table((*HEADER, against(members)), body), ""]
    if grown := list(growth_lines(rows)):
        lines += ["## Growth with the size, relative to the smallest", "", *(f"- {line}" for line in grown), ""]
    refused = [f"- {entry['name']}: no figure: {entry['reason']}" for entry in own.get("refused", [])]
    return "\n".join([*lines, *refused]).rstrip() + "\n"


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    for line in (heads, ["-"] * len(heads), *rows):
        yield "| " + " | ".join(value.replace("|", "\\|") for value in line) + " |"


def against(rows: Sequence[Row]) -> str:
    """The head of the column of ratios."""
    return f"{rows[0].provider} / this"


def cells(row: Row) -> tuple[str, ...]:
    """A row's figures as text, in the order of `HEADER`; a dash for what the file does not say."""
    extra = row.extra

    def shown(name: str, form: str) -> str:
        return "–" if extra.get(name) is None else format(extra[name], form)

    low, middle, high, slow, slowest = (digits(row.at(share)) for share in (0.2, 0.5, 0.8, 0.95, 0.99))
    images = digits(extra["images_per_second"]) if "images_per_second" in extra else "–"
    rates = shown("tflops", ".3f"), shown("gb_per_s", ".2f"), shown("share_of_ceiling", ".0%")
    memory = shown("added_mb", ".0f"), shown("peak_mb", ".0f")
    return row.provider, middle, f"{low}-{high}", slow, slowest, images, *rates, *memory


def digits(value: float) -> str:
    """Three digits, and all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def growth(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Time per counted operation relative to the smallest size: 1 where time grows as the work does.

    Returns:
        By provider with its case, such as `engine float32, ViT-B-16, batch 1, latency`: the ratio by size, the smallest
        first. Medians of the rounds; cases of one size are left out.
    """
    costs: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.seconds and row.extra.get("flops") and row.params.get("mode") in ("latency", "throughput"):
            case = f"{row.provider}, {row.params['model']}, batch {row.params['batch']}, {row.params['mode']}"
            costs.setdefault(case, {})[row.params["size"]] = row.at(0.5) / row.extra["flops"]
    return {
        case: {size: by_size[size] / by_size[min(by_size)] for size in sorted(by_size)}
        for case, by_size in costs.items()
        if len(by_size) > 1
    }


def growth_lines(rows: Sequence[Row]) -> Iterator[str]:
    """The same in words, a line a provider; `spread` is the largest change between any two sizes."""
    for case, ratios in growth(rows).items():
        listed = ", ".join(f"{size}² {value:.2f}" for size, value in ratios.items())
        spread = max(ratios.values()) / min(ratios.values())
        yield f"time per counted FLOP, {case}: {listed} (spread {spread:.2f}×)"
