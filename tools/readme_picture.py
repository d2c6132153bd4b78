"""The README's picture, from the package's samples and its embedded model: `python tools/readme_picture.py OUT.png`."""

import sys
from pathlib import Path

from PIL import Image

import gem_fast
from gem_fast.demo import SAMPLES, sample_prompts

SCENES = ("car_tree_house.png", "cat_umbrella.png")
PHOTOS = ("chelsea.jpg", "rocket.jpg")
TILE = 220  # pixels of a tile's width, without the legend
GAP = 6


def tiles(model: gem_fast.GemModel, name: str, heatmaps: int) -> list[Image.Image]:
    """The image, its labels, and the heat maps of its first words."""
    words = sample_prompts()[name]
    image = Image.open(str(SAMPLES / name)).convert("RGB")
    image = image.resize((TILE, round(TILE * image.height / image.width)))
    result = model.segment(image, words)
    return [image, result.overlay(), *(result.overlay(word) for word in words[:heatmaps])]


def main() -> None:
    """Write the picture to the file named on the command line."""
    model = gem_fast.load("gem-tiny")
    rows = [tiles(model, name, heatmaps=2) for name in SCENES]
    rows.append([tile for name in PHOTOS for tile in tiles(model, name, heatmaps=0)])
    heights = [max(tile.height for tile in row) for row in rows]
    sheet = Image.new("RGB", (4 * TILE + 3 * GAP, sum(heights) + GAP * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (column * (TILE + GAP), top))
        top += height + GAP
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main()
