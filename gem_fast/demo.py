"""Segment the sample images of this package with its embedded model: `python -m gem_fast.demo [FOLDER]`."""

import json
import sys
from importlib.resources import files
from pathlib import Path

from . import load
from .model import GemModel

SAMPLES = files("gem_fast") / "samples"
PHOTOS = {"chelsea.jpg": ["cat"], "rocket.jpg": ["rocket"]}  # gem-tiny has only seen drawings


def sample_prompts() -> dict[str, list[str]]:
    """Words to look for in each sample image, by its file name."""
    return json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8")) | PHOTOS


def run(model: GemModel, out: Path) -> list[Path]:
    """Write overlays, labels and heat maps of all samples; returns the overlays."""
    overlays = []
    for name, words in sample_prompts().items():
        result = model.segment(str(SAMPLES / name), words)
        overlays.append(result.save(out)["overlay"])
        for word in words:
            path = out / f"{Path(name).stem}.{word}.png"
            result.overlay(word).save(path)
    return overlays


def main() -> None:
    """Run the demo into the folder named on the command line."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo_output")
    out.mkdir(parents=True, exist_ok=True)
    model = load("gem-tiny")
    for path in run(model, out):
        print(path)
    print(f"Overlays, label images with their legends, and a heat map for each word are in {out.resolve()}")


if __name__ == "__main__":
    main()
