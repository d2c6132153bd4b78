"""The report as one HTML file that needs no network: machine, command, plots, and a table of every figure."""

from collections.abc import Sequence
from html import escape
from typing import Any

from .growth import growth_lines
from .machine import machine_line
from .measure import ratio
from .plots import plots, to_svg
from .records import Row, by_group, read_rows
from .tables import HEADER, NOTES, against, cells

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
pre { background: #f3f3f3; padding: .5em .8em; white-space: pre-wrap } svg { max-width: 100%; height: auto }
.refused { color: #a03030 }
"""


def page(content: dict[str, Any]) -> str:
    """The page of a run's JSON document."""
    rows, own = read_rows(content), content.get("gem_fast", {})
    line = machine_line(content["machine_info"]) if "instruction_sets" in content["machine_info"] else ""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>gem_fast benchmark</title><style>{_CSS}</style>",
        "<h1>gem_fast benchmark</h1>",
        f"<p>{escape(line)}<br>{escape(content['datetime'])}</p><pre>{escape(own.get('command', ''))}</pre>",
        f"<p>{escape(NOTES)}</p>",
    ]
    for name, figure in plots(rows, own.get("ceilings", {})):
        parts += [f"<h2>{_TITLES[name]}</h2>", to_svg(figure)]
    parts.append("<h2>Figures</h2>")
    for group, members in by_group(rows).items():
        parts += [f"<h3>{escape(group)}</h3>", _table(members)]
    if lines := list(growth_lines(rows)):
        parts += [
            "<h2>Growth with the size, relative to the smallest</h2>",
            *(f"<p>{escape(line)}</p>" for line in lines),
        ]
    for refused in own.get("refused", []):
        parts.append(f"<p class=refused>{escape(refused['name'])}: no figure: {escape(str(refused['reason']))}</p>")
    return "\n".join(parts) + "\n</html>\n"


def _table(rows: Sequence[Row]) -> str:
    header = (*HEADER, against(rows))
    lines = ["<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr>"]
    for row in rows:
        values = (*cells(row), str(ratio(rows[0].seconds, row.seconds)))
        lines.append("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in values) + "</tr>")
    return "\n".join([*lines, "</table>"])
