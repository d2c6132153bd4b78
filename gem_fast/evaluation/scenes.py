"""The 200 held-out scenes of this package, which no training step of `gem-tiny` has seen. Needs no torch."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

HELD_OUT = Path(str(files("gem_fast") / "evaluation" / "held_out"))


class Scene(NamedTuple):
    """An image and, for each of its nouns, the bool mask `[H, W]` of the visible pixels."""

    image: Image.Image
    masks: dict[str, np.ndarray]


@cache
def load_scenes(folder: Path = HELD_OUT) -> tuple[Scene, ...]:
    """The scenes of a folder that `tools/gem_tiny/holdout.py` wrote."""
    index = json.loads((folder / "scenes.json").read_text())
    side, columns = index["side"], index["columns"]
    sheet = Image.open(folder / "scenes.webp").convert("RGB")
    labels = np.asarray(Image.open(folder / "masks.png"))
    scenes = []
    for i, nouns in enumerate(index["nouns"]):
        x, y = i % columns * side, i // columns * side
        label = labels[y : y + side, x : x + side]
        image = sheet.crop((x, y, x + side, y + side))
        scenes.append(Scene(image, {noun: label == k for k, noun in enumerate(nouns, 1)}))
    return tuple(scenes)
