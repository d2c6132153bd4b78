"""A picture of scenes with their heat maps, for the model card."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gem_fast import GemModel

from .holdout import Scene
from .measures import segmentations

CELL, GAP, TEXT = 112, 4, 14


def contact_sheet(model: GemModel, scenes: list[Scene], columns: int = 2, rows: int = 8) -> Image.Image:
    """The first scenes with three objects or two, in their order: scene, heat map of each noun."""
    several = [scene for scene in scenes if len(scene[1]) > 1][: columns * rows]
    width, height = 4 * (CELL + GAP) + 2 * GAP, CELL + TEXT + GAP
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, result in enumerate(segmentations(model, several, model.defaults.size)):
        left, top = i % columns * width, i // columns * height
        cells = [(result.image, "scene")]
        cells += [
            (_blend(result.image, heat), name) for name, heat in zip(result.classes, result.heatmaps, strict=True)
        ]
        for k, (picture, title) in enumerate(cells):
            sheet.paste(picture.resize((CELL, CELL)), (left + k * (CELL + GAP), top + TEXT))
            draw.text((left + k * (CELL + GAP), top), title, fill="black", font=font)
    return sheet.quantize(192, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _blend(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """Grey image with the heat map in colours, from blue (0) over green to red (1)."""
    stops = np.array([[0, 0, 128], [0, 160, 255], [64, 255, 64], [255, 200, 0], [230, 0, 0]], np.float32)
    position = heat * (len(stops) - 1)
    colours = np.stack([np.interp(position, np.arange(len(stops)), stops[:, c]) for c in range(3)], -1)
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    return Image.fromarray((0.4 * grey + 0.6 * colours).astype(np.uint8))
