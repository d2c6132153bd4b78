"""Fixed sets of scenes for choosing settings and for figures, and the files of the test set.

    python -m tools.gem_tiny.holdout --work build/gem_tiny --out gem_fast/evaluation/held_out

The seeds lie far from those of training (7 * 1000003 + step). Scenes are not stylised, and each object shows at least
1% of the scene.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .nouns import NOUNS, TRAINING_STYLES
from .scenes import Drawings, random_scenes

SIDE = 128
COLUMNS = 20
Scene = tuple[Image.Image, dict[str, np.ndarray]]
STYLES = {"training": TRAINING_STYLES, "fluent-emoji-flat": ("fluent-emoji-flat",), "openmoji": ("openmoji",)}
SEEDS = {"validation": 900_000_001, "test": 900_000_002, "single": 900_000_003}


def holdout(work: Path, styles: tuple[str, ...], seed: int, count: int, objects: tuple[int, ...]) -> list[Scene]:
    """`count` scenes as (image, {noun: bool mask [128, 128] of its visible pixels})."""
    generator = torch.Generator().manual_seed(seed)
    scenes = random_scenes(Drawings(work / "icons96.npz", styles), 2 * count, SIDE, objects, generator)
    images = (scenes.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    found: list[Scene] = []
    for image, nouns, masks in zip(images, scenes.nouns, scenes.masks, strict=True):
        named = {NOUNS[int(n)].name: mask.numpy() for n, mask in zip(nouns, masks, strict=True) if n >= 0}
        if all(mask.sum() >= 0.01 * SIDE * SIDE for mask in named.values()):
            found.append((Image.fromarray(image), named))
    assert len(found) >= count
    return found[:count]


def write(scenes: list[Scene], out: Path) -> None:
    """A sheet of the scenes, a sheet of their labels (0 background, i the i-th noun), and the nouns."""
    rows = -(-len(scenes) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, rows * SIDE))
    labels = Image.new("L", sheet.size)
    for i, (image, masks) in enumerate(scenes):
        place = (i % COLUMNS * SIDE, i // COLUMNS * SIDE)
        sheet.paste(image, place)
        label = sum(k * mask.astype(np.uint8) for k, mask in enumerate(masks.values(), 1))
        labels.paste(Image.fromarray(np.asarray(label, np.uint8)), place)
    out.mkdir(parents=True, exist_ok=True)
    sheet.save(out / "scenes.webp", quality=90, method=6)
    labels.save(out / "masks.png", optimize=True)
    index = {"side": SIDE, "columns": COLUMNS, "nouns": [list(masks) for _, masks in scenes]}
    (out / "scenes.json").write_text(json.dumps(index) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/gem_tiny"))
    parser.add_argument("--out", type=Path, default=Path("gem_fast/evaluation/held_out"))
    args = parser.parse_args()
    write(holdout(args.work, TRAINING_STYLES, SEEDS["test"], 200, (1, 2, 3)), args.out)


if __name__ == "__main__":
    main()
