"""What a million images take on other machines: `python -m gem_fast.bench.scaling [folder]` (`make scaling`).

Writes `scaling.md` from the pipeline's own statistics in `batch.json`, which `make bench-batch` measures.
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gem_fast.writing import write_whole

from .tables import markdown_table

GPU = 0.00054  # seconds an image: ViT-B/16, bfloat16, 448², in batches of 32 on an H200 (h200_forward.json)
# Seconds a pixel of labels of 150 classes there: what 3,000 web photos took beyond that, at 497 images/s in all.
DECODING = (1 / 497 - GPU) / (640 * 480)
INTRO = """# A million images

Written by `make scaling` (`bench/scaling.py`) from `batch.json`, measured on {machine}{quick}.

A web photo is 640×480, a camera's 4000×3000; 150 classes, labels at the photo's size. *Feed* is all but encoding, on
one core: its stages are told by the pipeline itself (`--stats`). Encoding is ViT-B/16 in bfloat16 on the CPU.
**What more cores give is predicted**: they share images without getting in each other's way. A GPU takes the {gpu} ms
that an H200 took for a forward of 448²; where it decodes labels too, what it took for 3,000 web photos (497 images/s
with 16 cores), by the pixel. *Feeding* tells how many cores keep a GPU busy.
"""
HEADS = ["workload", "machine", "feed, ms", "most of it", "images/s", "hours a million", "feeding"]


def plan(feed: float, encode: float, cores: int, gpu: float = 0.0) -> float:
    """Images a second, given core-seconds of an image, or the seconds of a GPU that encodes instead."""
    return min(cores / feed, 1 / gpu) if gpu else cores / (feed + encode)


def rows(found: dict[str, Any]) -> Iterator[list[str]]:
    encode = found["ViT-B-16"]["engine"]
    for photo, pixels in (("web", 640 * 480), ("camera", 4000 * 3000)):
        alone, _, whole = (case["stages"] for case in found[photo]["cases"])
        labels = alone | {"decode scores": whole["decode scores"]}
        machines = [(labels, "2 cores", 2, 0.0), (labels, "16 cores", 16, 0.0), (labels, "16 cores + H200", 16, GPU)]
        drawn = [(whole, *machine) for _, *machine in machines]
        decoding = [(alone, "16 cores + H200 that decodes", 16, GPU + DECODING * pixels)]
        for name, cases in (("labels", machines + decoding), ("labels and overlay", drawn)):
            for stages, machine, cores, gpu in cases:
                yield _row(f"{photo}, {name}", machine, stages, plan(sum(stages.values()), encode, cores, gpu), gpu)


def _row(name: str, machine: str, stages: dict[str, float], rate: float, gpu: float) -> list[str]:
    feed, longest = sum(stages.values()), max(stages, key=lambda stage: stages[stage])
    share, feeding = f"{stages[longest] / feed:.0%} {longest}", str(math.ceil(feed / gpu)) if gpu else ""
    return [name, machine, f"{feed * 1e3:.2f}", share, f"{rate:,.2f}", f"{1e6 / rate / 3600:,.1f}", feeding]


def main(folder: str = "bench/reports") -> None:
    """Write the page; a file that is missing or damaged ends it with its name."""
    path = Path(folder) / "batch.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        table = markdown_table(HEADS, list(rows(found)))
        quick = ", by `--quick`: a look at a few images, not a result" if found["quick"] else ""
        intro = INTRO.format(machine=found["machine"], quick=quick, gpu=GPU * 1e3)
    except (OSError, ValueError, TypeError, KeyError) as error:
        sys.exit(f"scaling: {path}: no file of `make bench-batch` ({error})")
    write_whole(Path(folder) / "scaling.md", "\n".join([intro, *table, ""]).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
