"""How far `gem-tiny` in lower types is from itself in float32 on its 200 held-out scenes: `python -m tools.agreement`.

Other models' features in these types, with random weights, are told by `gem-fast bench --json` as `error`.
"""

from collections.abc import Sequence

import torch

import gem_fast
from gem_fast.evaluation.scenes import Scene, load_scenes
from gem_fast.preprocess import to_pixels

_TYPES = ("bfloat16", "int8")


def agreement(ours: gem_fast.GemModel, exact: gem_fast.GemModel, scenes: Sequence[Scene]) -> tuple[float, float]:
    """Relative error of patch features, and the share of pixels with the same label, each scene under its own words."""
    side = exact.defaults.size
    pixels = torch.stack([to_pixels(scene.image, (side, side), exact.mean, exact.std) for scene in scenes])
    found, truth = (model.features(pixels).float() for model in (ours, exact))
    images, words = [scene.image for scene in scenes], [list(scene.masks) for scene in scenes]
    same = pixels_seen = 0
    for one, other in zip(ours.segment(images, words), exact.segment(images, words), strict=True):
        same += int((one.labels == other.labels).sum())
        pixels_seen += other.labels.size
    return float((found - truth).norm() / truth.norm()), same / pixels_seen


def main() -> None:
    """Print a line a type."""
    exact = gem_fast.load("gem-tiny")
    for dtype in _TYPES:
        error, labels = agreement(gem_fast.load("gem-tiny", dtype=dtype), exact, load_scenes())
        print(f"{dtype}: features off by {error:.2%}, {labels:.2%} of the pixels with float32's label")


if __name__ == "__main__":
    main()
