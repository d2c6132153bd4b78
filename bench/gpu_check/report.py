"""What was found, as a table for the screen and as JSON in the schema of the other benchmarks."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gem_fast.bench.measure import quantile
from gem_fast.bench.records import Row, document, write_document
from rich.console import Console
from rich.table import Table

from gem_fast.terminal import say

from .cases import Case
from .timing import Timed
from .verify import RIGHT, SKIPPED, Check

STYLES = {"WRONG": "red", "failed": "yellow", "skipped": "yellow", "right": ""}


@dataclass(frozen=True)
class Found:
    """A check of a case with its times."""

    case: Case
    check: Check
    times: Timed = field(default_factory=Timed)

    @property
    def bad(self) -> bool:
        """Whether the command fails for it: what it is to verify is wrong or fails. A rival may fail."""
        return self.check.ours and self.check.verdict not in (RIGHT, SKIPPED)

    @property
    def reason(self) -> str:
        return self.check.reason or self.times.note


def print_table(found: Sequence[Found], console: Console) -> None:
    """A table of each kernel, then what was not right, with its reasons."""
    wide = Console(file=console.file, width=max(console.width, 160))  # a figure cut to the terminal's width is none
    for kernel in dict.fromkeys(each.case.kernel for each in found):
        columns = ("shape", "type", "by", "", "error", "allowed", "ms", "20-80%", "× ours", "host ms")
        table = Table(*columns, title=kernel, box=None, title_justify="left")
        members = [each for each in found if each.case.kernel == kernel]
        for each in members:
            table.add_row(*_cells(each, members), style=STYLES[each.check.verdict])
        wide.print(table)
    for each in found:
        if each.reason:
            line = f"{each.case}, {each.check.provider}: {each.check.verdict}, {each.reason}"
            say(line, to=console)


def _cells(each: Found, members: Sequence[Found]) -> list[str]:
    check, seconds = each.check, each.times.seconds
    figures = [f"{quantile(seconds, share) * 1e3:.4f}" for share in (0.5, 0.2, 0.8)] if seconds else []
    ours = [m.times.seconds for m in members if m.case == each.case and m.check.ours and m.times.seconds]
    times = f"{quantile(seconds, 0.5) / min(quantile(own, 0.5) for own in ours):.2f}" if seconds and ours else ""
    nearest = max(check.errors, key=lambda name: check.errors[name].mean / check.allowed[name].mean, default=None)
    shown = [f"{of[nearest].mean:.1e}" if nearest else "" for of in (check.errors, check.allowed)]
    span = f"{figures[1]}-{figures[2]}" if figures else ""
    host = f"{each.times.host_seconds * 1e3:.3f}" if each.times.host_seconds else ""
    names = [each.case.shape, each.case.kind, check.provider, check.verdict]
    return [*names, *shown, figures[0] if figures else "", span, times, host]


def write_json(path: Path, found: Sequence[Found], facts: dict[str, Any], command: str) -> None:
    """Times as benchmarks, which `gem-fast bench compare` reads, and every check under `gem_fast.checks`."""
    content = document([_row(each) for each in found], facts, command=command, ceilings={})
    content["gem_fast"]["checks"] = [_record(each) for each in found]
    write_document(path, content)


def _row(each: Found) -> Row:
    case, provider = each.case, each.check.provider
    params = {"provider": provider, "kernel": case.kernel, "shape": case.shape, "kind": case.kind}
    return Row(f"{case} {provider}", str(case), each.times.seconds, params, {"refused": each.reason or None})


def _record(each: Found) -> dict[str, Any]:
    case, check = each.case, {name: value for name, value in asdict(each.check).items() if name != "reason"}
    names = {"kernel": case.kernel, "shape": case.shape, "kind": case.kind}
    for error in check["errors"].values():  # JSON has no infinity
        error.update({name: None for name, value in error.items() if math.isinf(value)})
    median = quantile(each.times.seconds, 0.5) if each.times.seconds else None
    return names | check | {"reason": each.reason, "median_s": median, "host_s": each.times.host_seconds}
