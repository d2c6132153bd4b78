"""Measures gem-tiny with the engine and writes figures.json and the contact sheet of its model card.

python -m tools.gem_tiny.evaluate --work build/gem_tiny --out gem_fast/embedded/gem_tiny
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import gem_fast
from gem_fast.evaluation.scenes import HELD_OUT, load_scenes

from .contact import contact_sheet
from .holdout import SEEDS, STYLES, Scene, holdout
from .measures import iou, localisation, segmentations, zero_shot
from .nouns import NOUNS

# CLIP Surgery: value-value attention with CLIP's own temperature.
SURGERY: dict[str, Any] = {
    "projections": "v",
    "iterations": 0,
    "normalize": False,
    "inverse_temperature": 0.125,
    "gem_blocks": 6,
}


def through_webp(scenes: list[Scene], folder: Path) -> list[Scene]:
    """The scenes as the files of `gem_fast/evaluation/held_out` would hold them, so that all sets are alike."""
    from .holdout import write

    write(scenes, folder)
    return list(load_scenes(folder))


def label_iou(model: gem_fast.GemModel, scenes: list[Scene], size: int) -> float:
    """Mean IoU over objects of the labels, with the model's own threshold and multiplier, for its scene's nouns."""
    values = []
    for result, (_, masks) in zip(segmentations(model, scenes, size), scenes, strict=True):
        labels = gem_fast.Segmentation.judged(
            result.image, result.classes, result.all_scores, result.decoder, model.defaults
        ).labels
        values += [iou(labels == k, mask) for k, mask in enumerate(masks.values(), 1)]
    return float(np.mean(values))


def figures(model: gem_fast.GemModel, scenes: list[Scene], single: list[Scene], size: int) -> dict[str, Any]:
    """All figures of one set: `scenes` of 1-3 objects, `single` of one."""
    top1, top5 = zero_shot(model, single, size, [noun.name for noun in NOUNS])
    return {
        "gem": asdict(localisation(model, scenes, size)),
        "surgery": asdict(localisation(gem_fast.load("gem-tiny", **SURGERY), scenes, size)),
        "clip": asdict(localisation(model, scenes, size, "original_patches")),
        "labels_iou": label_iou(model, scenes, size),
        "zero_shot": {"top1": top1, "top5": top5},
        "scenes": len(scenes),
        "objects": sum(len(masks) for _, masks in scenes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/gem_tiny"))
    parser.add_argument("--data", type=Path, default=HELD_OUT)
    parser.add_argument("--out", type=Path, default=Path("gem_fast/embedded/gem_tiny"))
    args = parser.parse_args()
    model = gem_fast.load("gem-tiny")
    size = model.defaults.size
    measured: dict[str, Any] = {"size": size}
    for name, styles in STYLES.items():
        scenes = list(load_scenes(args.data))
        if name != "training":
            made = holdout(args.work, styles, SEEDS["test"], len(scenes), (1, 2, 3))
            scenes = through_webp(made, args.work / name)
        single = through_webp(holdout(args.work, styles, SEEDS["single"], 500, (1,)), args.work / "single")
        measured[name] = figures(model, scenes, single, size)
        print(name, json.dumps(measured[name]), flush=True)
    (args.out / "figures.json").write_text(json.dumps(measured, indent=1) + "\n")
    sheet: Image.Image = contact_sheet(model, list(load_scenes(args.data)))
    sheet.save(args.out / "contact_sheet.png", optimize=True)


if __name__ == "__main__":
    main()
