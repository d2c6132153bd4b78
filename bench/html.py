"""The report as one HTML file that needs no network: machine, command, plots, and a table of every figure."""

from collections.abc import Sequence
from html import escape
from typing import Any

from .machine import machine_line
from .measure import ratio
from .plots import plots, to_svg
from .records import Row, by_group, read_rows

_TITLES = {
    "waterfall": "Waterfall: each technique added to those before it",
    "batch": "Latency against batch",
    "resolution": "Time and memory against resolution",
    "roofline": "Roofline: the ceilings are this machine's own, measured in the same run",
}
_CSS = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-size: 13px; margin: .5em 0 1.5em }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
code { background: #f3f3f3; padding: .1em .3em } svg { max-width: 100%; height: auto }
.refused { color: #a03030 }
"""
_FIRST, _LAST = ("provider", "p50 s", "20-80%", "p95 s", "p99 s", "images/s"), ("of ceiling", "MB added", "MB peak")
HEADER = (*_FIRST, "TFLOP/s", "GB/s", *_LAST)
ON_SCREEN = ("provider", "p50 s", "p95 s", "p99 s", "images/s", "TFLOP/s", "of ceiling", "MB added")


def page(content: dict[str, Any]) -> str:
    """The page of a run's JSON document."""
    rows, own = read_rows(content), content.get("gem_fast", {})
    line = machine_line(content["machine_info"]) if "instruction_sets" in content["machine_info"] else ""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>gem_fast benchmark</title><style>{_CSS}</style>",
        "<h1>gem_fast benchmark</h1>",
        f"<p>{escape(line)}<br>{escape(content['datetime'])}<br><code>{escape(own.get('command', ''))}</code></p>",
        "<p>Providers of a case were timed in turns in one run, after their outputs were found to agree. Times are "
        "medians of rounds; ratios are medians of the ratios round by round, with their 20% and 80% quantiles. "
        "Operations are counted from shapes, those that the symmetry of p pᵀ saves count as done; "
        "<i>of ceiling</i> is the least time at the rates of a large matrix product and of a copy, over the time.</p>",
    ]
    for name, figure in plots(rows, own.get("ceilings", {})):
        parts += [f"<h2>{_TITLES[name]}</h2>", to_svg(figure)]
    parts.append("<h2>Figures</h2>")
    for group, members in by_group(rows).items():
        parts += [f"<h3>{escape(group)}</h3>", _table(members)]
    for refused in own.get("refused", []):
        parts.append(f"<p class=refused>{escape(refused['name'])}: no figure: {escape(str(refused['reason']))}</p>")
    return "\n".join(parts) + "\n</html>\n"


def _table(rows: Sequence[Row]) -> str:
    header = (*HEADER, f"{rows[0].provider} / this")
    lines = ["<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr>"]
    for row in rows:
        values = (*cells(row), str(ratio(rows[0].seconds, row.seconds)))
        lines.append("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in values) + "</tr>")
    return "\n".join([*lines, "</table>"])


def cells(row: Row) -> tuple[str, ...]:
    """A row's figures as text, in the order of `HEADER`; a dash for what the file does not say."""
    extra = row.extra

    def shown(name: str, form: str) -> str:
        return "–" if extra.get(name) is None else format(extra[name], form)

    return (
        row.provider,
        f"{row.at(0.5):.3f}",
        f"{row.at(0.2):.3f}-{row.at(0.8):.3f}",
        f"{row.at(0.95):.3f}",
        f"{row.at(0.99):.3f}",
        shown("images_per_second", ".3g"),
        shown("tflops", ".3f"),
        shown("gb_per_s", ".2f"),
        shown("share_of_ceiling", ".0%"),
        shown("added_mb", ".0f"),
        shown("peak_mb", ".0f"),
    )
