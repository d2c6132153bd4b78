"""Makes the generated sample scenes of the package: the drawings of the Apache and MIT sets, larger.

python -m tools.gem_tiny.icons --packages node_modules/@iconify-json --work build/gem_tiny --tile 256
python -m tools.gem_tiny.samples --work build/gem_tiny --out gem_fast/samples
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .nouns import NOUNS, TRAINING_STYLES
from .scenes import SLOTS, Drawings, compose

SIDE = 320
# Nouns and seed of each sample; the seeds were picked by eye among scenes where the finished model does well.
SAMPLES = {
    "dog_bicycle": (("dog", "bicycle"), 27),
    "cat_umbrella": (("cat", "umbrella"), 21),
    "car_tree_house": (("car", "tree", "house"), 21),
    "apple_banana_grapes": (("apple", "banana", "grapes"), 19),
    "rocket_penguin": (("rocket", "penguin"), 30),
    "elephant_balloon_gift": (("elephant", "balloon", "gift"), 33),
}


def sample(drawings: Drawings, names: tuple[str, ...], seed: int) -> tuple[Image.Image, Image.Image]:
    """A scene and its label image: 0 is background, i + 1 the i-th noun."""
    index = [[noun.name for noun in NOUNS].index(name) for name in names]
    nouns = torch.tensor([index + [-1] * (SLOTS - len(index))])
    scene = compose(drawings, nouns, SIDE, torch.Generator().manual_seed(910_000_000 + seed))
    picture = (scene.images[0] * 255).round().byte().permute(1, 2, 0).numpy()
    labels = sum(k * scene.masks[0, k - 1].byte().numpy() for k in range(1, len(names) + 1))
    return Image.fromarray(picture), Image.fromarray(np.asarray(labels, np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/gem_tiny"))
    parser.add_argument("--out", type=Path, default=Path("gem_fast/samples"))
    args = parser.parse_args()
    drawings = Drawings(args.work / "icons256.npz", TRAINING_STYLES)
    (args.out / "masks").mkdir(parents=True, exist_ok=True)
    index: dict[str, list[str]] = {}
    for name, (nouns, seed) in SAMPLES.items():
        picture, labels = sample(drawings, nouns, seed)
        picture.save(args.out / f"{name}.png", optimize=True)
        labels.save(args.out / "masks" / f"{name}.png", optimize=True)
        index[f"{name}.png"] = list(nouns)
    (args.out / "samples.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main()
