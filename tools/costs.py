"""What a million images cost, way by way: `python -m tools.costs` writes the table of docs/batch.md.

Rates are those of bench/reports/scaling.md, which `make scaling` writes; what several machines take is a share of it.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPORT, PAGE = ROOT / "bench/reports/scaling.md", ROOT / "docs/batch.md"
_HEAD = "| way | machines | web photos | camera's |"
_PHOTOS = ("web", "camera")


@dataclass(frozen=True)
class Way:
    """A way to do it.

    Attributes:
        name, machines: as the table has them.
        row: the report's machine.
        count: of these, each with a part of the images.
    """

    name: str
    machines: str
    row: str
    count: int = 1


WAYS = (
    Way("a laptop", "2 cores", "2 cores"),
    Way("one big machine", "16 cores", "16 cores"),
    Way("several GPUs", "4 H200, 16 cores each", "16 cores + H200 that decodes", 4),
    Way("Slurm", "an array of 16, 16 cores each", "16 cores", 16),
    Way("Slurm with GPUs", "an array of 16, 16 cores and an H200 each", "16 cores + H200 that decodes", 16),
    Way("Ray", "8 nodes, 16 cores and an H200 each", "16 cores + H200 that decodes", 8),
)


def hours_of(report: str) -> dict[tuple[str, str], float]:
    """Hours for a million images, labels alone, by photo and machine."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if line[:1] == "|"]
    found = {}
    for workload, machine, *_, rate, hours, _ in rows:
        photo, _, kind = workload.partition(", ")
        if kind == "labels":  # short times are told by their rate, which has more digits there
            told = float(hours.replace(",", ""))
            found[photo, machine] = told if told > 1 else 1e6 / float(rate.replace(",", "")) / 3600
    return found


def table(report: str) -> list[str]:
    """The lines of the table."""
    found, lines = hours_of(report), [_HEAD, "|---|---|---|---|"]
    for way in WAYS:
        web, camera = (_told(found[photo, way.row] / way.count) for photo in _PHOTOS)
        lines.append(f"| {way.name} | {way.machines} | {web} | {camera} |")
    return lines


def _told(hours: float) -> str:
    return f"{hours:,.{hours < 10:d}f} h" if hours >= 1 else f"{60 * hours:.{hours < 1 / 6:d}f} min"


def main() -> None:
    """Put the table in the place of the one that is there."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    first = lines.index(_HEAD)
    last = next(place for place in range(first, len(lines)) if not lines[place].startswith("|"))
    lines[first:last] = table(REPORT.read_text(encoding="utf-8"))
    PAGE.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
