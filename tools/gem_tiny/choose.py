"""Chooses input size, temperature, GEM blocks and thresholds on validation scenes and writes them to config.json.

python -m tools.gem_tiny.choose --work build/gem_tiny --out gem_fast/embedded/gem_tiny
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import gem_fast

from .export import write_settings
from .holdout import SEEDS, Scene, holdout
from .measures import iou, localisation, segmentations
from .nouns import NOUNS, TRAINING_STYLES

SIZES = (64, 96)
TEMPERATURES: tuple[float | None, ...] = (None, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0)
BLOCKS = (7, 6, 5)


def choose_options(scenes: list[Scene], size: int) -> tuple[float, dict[str, Any]]:
    """The best GEM options at an input size: first the temperature, then blocks and iterations.

    The best has the highest sum of mean IoU and right words: a high inverse temperature tells words apart, a low one
    covers objects.
    """
    tried: list[tuple[float, dict[str, Any]]] = []

    def attempt(**options: Any) -> None:
        measured = localisation(gem_fast.load("gem-tiny", **options), scenes, size)
        tried.append((measured.iou + measured.right_word, options))
        print(
            f"size {size} {options}: IoU {measured.iou:.3f}, several {measured.iou_several:.3f}, "
            f"right word {measured.right_word:.3f}",
            flush=True,
        )

    for temperature in TEMPERATURES:
        attempt(gem_blocks=7, iterations=1, inverse_temperature=temperature)
    _, best = max(tried, key=lambda each: each[0])
    for blocks, iterations in itertools.product(BLOCKS, (0, 1, 2)):
        if (blocks, iterations) != (7, 1):
            attempt(gem_blocks=blocks, iterations=iterations, inverse_temperature=best["inverse_temperature"])
    return max(tried, key=lambda each: each[0])


def choose_thresholds(scenes: list[Scene], size: int, options: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """The multiplier and threshold of labels, on the scene's nouns and one that is absent, background counted too."""
    model = gem_fast.load("gem-tiny", **options)
    rng = np.random.default_rng(0)
    absent = [[str(rng.choice([n.name for n in NOUNS if n.name not in masks]))] for _, masks in scenes]
    results = list(segmentations(model, scenes, size, extra=absent))
    tried = []
    for scale, threshold in itertools.product((10, 15, 20, 30), np.arange(0.60, 0.96, 0.05)):
        values = []
        for result, (_, masks) in zip(results, scenes, strict=True):
            labels = replace(result, threshold=float(threshold), logit_scale=scale).labels
            truth = [~np.any(list(masks.values()), axis=0), *masks.values()]
            values += [iou(labels == k, mask) for k, mask in enumerate(truth)]
        tried.append((float(np.mean(values)), {"logit_scale": float(scale), "threshold": round(float(threshold), 2)}))
    tried.sort(key=lambda each: -each[0])
    print(f"size {size}, labels: {tried[:5]}", flush=True)
    return tried[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/gem_tiny"))
    parser.add_argument("--out", type=Path, default=Path("gem_fast/embedded/gem_tiny"))
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    args = parser.parse_args()
    scenes = holdout(args.work, TRAINING_STYLES, SEEDS["validation"], args.scenes, (1, 2, 3))
    candidates = []
    for size in args.sizes:
        heat, options = choose_options(scenes, size)
        labels, thresholds = choose_thresholds(scenes, size, options)
        candidates.append((heat + labels, options, {"size": size, **thresholds, "heatmap_threshold": 0.5}))
    _, options, defaults = max(candidates, key=lambda each: each[0])
    print(f"chosen: {options} {defaults}")
    config = json.loads((args.out / "config.json").read_text())
    config["options"] = options
    config["defaults"] = defaults
    write_settings(args.out / "config.json", config)


if __name__ == "__main__":
    main()
