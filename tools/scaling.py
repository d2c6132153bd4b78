"""What a million images take: `python -m tools.scaling` (`make scaling`).

Writes `bench/reports/scaling.md` from the pipeline's own statistics in `batch.json`, which `make bench-batch` measures,
and from the same rates the table of docs/batch.md.
"""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gem_fast.bench.tables import markdown_table

from gem_fast.writing import write_whole

ROOT = Path(__file__).parents[1]
MEASURED, REPORT = ROOT / "bench/reports/batch.json", ROOT / "bench/reports/scaling.md"
PAGE = ROOT / "docs/batch.md"
PIXELS = {"web": 640 * 480, "camera": 4000 * 3000}
GPU = 0.00054  # seconds an image: ViT-B/16, bfloat16, 448², in batches of 32 on an H200 (h200_forward.json)
# Seconds a pixel of labels of 150 classes there: what 3,000 web photos took beyond that, at 497 images/s in all.
DECODING = (1 / 497 - GPU) / PIXELS["web"]
INTRO = """# A million images

Written by `make scaling` (`tools/scaling.py`) from `batch.json`, measured on {machine}{quick}.

A web photo is 640×480, a camera's 4000×3000; 150 classes, labels at the photo's size. *Feed* is all but encoding, on
one core: its stages are told by the pipeline itself (`--stats`). Encoding is ViT-B/16 in bfloat16 on the CPU.
**What more cores give is predicted**: they share images without getting in each other's way. A GPU takes the {gpu} ms
that an H200 took for a forward of 448²; where it decodes labels too, what it took for 3,000 web photos (497 images/s
with 16 cores), by the pixel. *Feeding* tells how many cores keep a GPU busy.
"""
HEADS = ["workload", "machine", "feed, ms", "most of it", "images/s", "hours a million", "feeding"]
_PAGE_HEAD = "| way | machines | web photos | camera's |"
_PAGE_WAYS = (  # name, machines, that of the report, and how many of these take a part each
    ("a laptop", "2 cores", "2 cores", 1),
    ("one big machine", "16 cores", "16 cores", 1),
    ("several GPUs", "4 H200, 16 cores each", "16 cores + H200 that decodes", 4),
    ("Slurm", "an array of 16, 16 cores each", "16 cores", 16),
    ("Slurm with GPUs", "an array of 16, 16 cores and an H200 each", "16 cores + H200 that decodes", 16),
    ("Ray", "8 nodes, 16 cores and an H200 each", "16 cores + H200 that decodes", 8),
)


@dataclass(frozen=True)
class Case:
    """Photos of a kind, with overlays or not, on a machine.

    Attributes:
        stages: core seconds of an image by stage, all but encoding.
        rate: images a second.
        gpu: seconds of an image there; 0 without one.
    """

    photo: str
    overlays: bool
    machine: str
    stages: dict[str, float]
    rate: float
    gpu: float

    def row(self) -> list[str]:
        feed, longest = sum(self.stages.values()), max(self.stages, key=lambda stage: self.stages[stage])
        share = f"{self.stages[longest] / feed:.0%} {longest}"
        feeding = str(math.ceil(feed / self.gpu)) if self.gpu else ""
        name = f"{self.photo}, labels{' and overlay' if self.overlays else ''}"
        hours = f"{1e6 / self.rate / 3600:,.1f}"
        return [name, self.machine, f"{feed * 1e3:.2f}", share, f"{self.rate:,.2f}", hours, feeding]


def plan(feed: float, encode: float, cores: int, gpu: float = 0.0) -> float:
    """Images a second, given core-seconds of an image, or the seconds of a GPU that encodes instead."""
    return min(cores / feed, 1 / gpu) if gpu else cores / (feed + encode)


def cases(found: dict[str, Any]) -> Iterator[Case]:
    """The report's, of what `make bench-batch` measured."""
    encode = found["ViT-B-16"]["engine"]
    for photo, pixels in PIXELS.items():
        alone, _, whole = (case["stages"] for case in found[photo]["cases"])
        labels = alone | {"decode scores": whole["decode scores"]}
        machines = [("2 cores", 2, 0.0), ("16 cores", 16, 0.0), ("16 cores + H200", 16, GPU)]
        rows = [(False, labels, *each) for each in machines]
        rows += [(False, alone, "16 cores + H200 that decodes", 16, GPU + DECODING * pixels)]
        rows += [(True, whole, *each) for each in machines]
        for overlays, stages, machine, cores, gpu in rows:
            yield Case(photo, overlays, machine, stages, plan(sum(stages.values()), encode, cores, gpu), gpu)


def report(found: dict[str, Any]) -> str:
    """The page of the report."""
    quick = ", by `--quick`: a look at a few images, not a result" if found["quick"] else ""
    intro = INTRO.format(machine=found["machine"], quick=quick, gpu=GPU * 1e3)
    return "\n".join([intro, *markdown_table(HEADS, [case.row() for case in cases(found)]), ""])


def page_table(found: dict[str, Any]) -> list[str]:
    """The lines of the table of docs/batch.md: labels alone, machines that share nothing but the list."""
    rates = {(case.photo, case.machine): case.rate for case in cases(found) if not case.overlays}
    lines = [_PAGE_HEAD, "|---|---|---|---|"]
    for name, machines, machine, count in _PAGE_WAYS:
        web, camera = (_told(1e6 / rates[photo, machine] / count / 3600) for photo in PIXELS)
        lines.append(f"| {name} | {machines} | {web} | {camera} |")
    return lines


def _told(hours: float) -> str:
    return f"{hours:,.{hours < 10:d}f} h" if hours >= 1 else f"{60 * hours:.{hours < 1 / 6:d}f} min"


def main(measured: Path = MEASURED, written: Path = REPORT, page: Path = PAGE) -> None:
    """Write the report, and the page's table anew; a file that is missing or damaged ends it with its name."""
    try:
        found = json.loads(measured.read_text(encoding="utf-8"))
        content, table = report(found), page_table(found)
    except (OSError, ValueError, TypeError, KeyError) as error:
        sys.exit(f"scaling: {measured}: no file of `make bench-batch` ({error})")
    lines = page.read_text(encoding="utf-8").splitlines()
    first = lines.index(_PAGE_HEAD)
    last = next(place for place in range(first, len(lines)) if not lines[place].startswith("|"))
    lines[first:last] = table
    write_whole(written, content.encode())
    write_whole(page, "\n".join([*lines, ""]).encode())


if __name__ == "__main__":
    main()
