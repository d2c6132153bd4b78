"""The report's tables as Markdown, for a page that shows no HTML."""

from typing import Any

from .growth import growth_lines
from .machine import machine_line
from .measure import ratio
from .records import by_group, read_rows
from .tables import HEADER, NOTES, against, cells


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
        header = (*HEADER, against(members))
        lines += [f"## {group}", "", _line(header), _line("-" for _ in header)]
        lines += [_line((*cells(row), str(ratio(members[0].seconds, row.seconds)))) for row in members]
        lines.append("")
    if grown := list(growth_lines(rows)):
        lines += ["## Growth with the size, relative to the smallest", "", *(f"- {line}" for line in grown), ""]
    refused = [f"- {entry['name']}: no figure: {entry['reason']}" for entry in own.get("refused", [])]
    return "\n".join([*lines, *refused]).rstrip() + "\n"


def _line(values: Any) -> str:
    return "| " + " | ".join(str(value).replace("|", "\\|") for value in values) + " |"
