"""The 200 fixed held-out scenes in `tests/data`, which no training step has seen."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

DATA = Path(__file__).parent / "data"


def load_scenes(folder: Path = DATA) -> list[tuple[Image.Image, dict[str, np.ndarray]]]:
    """Each scene as its image and, for each of its nouns, the bool mask `[H, W]` of the visible pixels."""
    index = json.loads((folder / "scenes.json").read_text())
    side, columns = index["side"], index["columns"]
    sheet = Image.open(folder / "scenes.webp").convert("RGB")
    labels = np.asarray(Image.open(folder / "masks.png"))
    scenes = []
    for i, nouns in enumerate(index["nouns"]):
        x, y = i % columns * side, i // columns * side
        label = labels[y : y + side, x : x + side]
        image = sheet.crop((x, y, x + side, y + side))
        scenes.append((image, {noun: label == k for k, noun in enumerate(nouns, 1)}))
    return scenes
