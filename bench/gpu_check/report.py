"""What was found, as a table for the screen and as JSON in the schema of the other benchmarks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gem_fast.bench.measure import quantile
from gem_fast.bench.records import Row, document, write_document
from rich.console import Console
from rich.table import Table

from gem_fast.terminal import say

from .cases import Case
from .verify import RIGHT, Check

STYLES = {"WRONG": "red", "failed": "yellow", "right": ""}


@dataclass(frozen=True)
class Found:
    """A check of a case with its times, seconds a turn; `untimed` says why a right one has none."""

    case: Case
    check: Check
    seconds: tuple[float, ...] = ()
    untimed: str = ""

    @property
    def bad(self) -> bool:
        """Whether the command fails for it: what it is to verify is not right. A rival may fail."""
        return self.check.ours and self.check.verdict != RIGHT

    @property
    def reason(self) -> str:
        return self.check.reason or self.untimed


def print_table(found: Sequence[Found], console: Console) -> None:
    """A table of each kernel, then what was not right, with its reasons."""
    wide = Console(file=console.file, width=max(console.width, 150))  # a figure cut to the terminal's width is none
    for kernel in dict.fromkeys(each.case.kernel for each in found):
        table = Table("shape", "type", "by", "", "error", "allowed", "ms", "20-80%", "× ours", title=kernel)
        table.box, table.title_justify = None, "left"
        members = [each for each in found if each.case.kernel == kernel]
        for each in members:
            table.add_row(*_cells(each, members), style=STYLES[each.check.verdict])
        wide.print(table)
    for each in found:
        if each.reason:
            line = f"{each.case}, {each.check.provider}: {each.check.verdict}, {each.reason}"
            say(line, to=console)


def _cells(each: Found, members: Sequence[Found]) -> list[str]:
    check = each.check
    figures = [f"{quantile(each.seconds, share) * 1e3:.4f}" for share in (0.5, 0.2, 0.8)] if each.seconds else []
    best = [quantile(m.seconds, 0.5) for m in members if m.case == each.case and m.check.ours and m.seconds]
    times = f"{quantile(each.seconds, 0.5) / min(best):.2f}" if each.seconds and best else ""
    nearest = max(check.errors, key=lambda name: check.errors[name].mean / check.allowed[name].mean, default=None)
    shown = [f"{of[nearest].mean:.1e}" if nearest else "" for of in (check.errors, check.allowed)]
    span = f"{figures[1]}-{figures[2]}" if figures else ""
    return [each.case.shape, each.case.kind, check.provider, check.verdict, *shown, *figures[:1], span, times]


def write_json(path: Path, found: Sequence[Found], facts: dict[str, Any], command: str) -> None:
    """Times as benchmarks, which `gem-fast bench compare` reads, and every check under `gem_fast.checks`."""
    content = document([_row(each) for each in found], facts, command=command, ceilings={})
    content["gem_fast"]["checks"] = [_record(each) for each in found]
    write_document(path, content)


def _row(each: Found) -> Row:
    case, provider = each.case, each.check.provider
    params = {"provider": provider, "kernel": case.kernel, "shape": case.shape, "kind": case.kind}
    return Row(f"{case} {provider}", str(case), each.seconds, params, {"refused": each.reason or None})


def _record(each: Found) -> dict[str, Any]:
    case, check = each.case, {name: value for name, value in asdict(each.check).items() if name != "reason"}
    names = {"kernel": case.kernel, "shape": case.shape, "kind": case.kind}
    return names | check | {"reason": each.reason, "median_s": quantile(each.seconds, 0.5) if each.seconds else None}
