"""Renders the drawings of the vocabulary, once, to square RGBA tiles.

python -m tools.gem_tiny.icons --packages node_modules/@iconify-json --work build/gem_tiny
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .nouns import HELD_OUT_STYLES, NOUNS, TRAINING_STYLES, Noun

TILE = 96


@dataclass(frozen=True, slots=True)
class Drawing:
    style: str
    noun: int
    icon: str
    svg: str


def drawings(packages: Path, style: str) -> list[Drawing]:
    """The drawings an icon set has for the vocabulary, without repeats."""
    data = json.loads((packages / style / "icons.json").read_text())
    size = (data.get("width", 16), data.get("height", 16))
    found: list[Drawing] = []
    for index, noun in enumerate(NOUNS):
        bodies: set[str] = set()
        for name in _icon_names(noun, style):
            icon = data["icons"].get(data.get("aliases", {}).get(name, {}).get("parent", name))
            if icon is None or icon["body"] in bodies:
                continue
            bodies.add(icon["body"])
            width, height = icon.get("width", size[0]), icon.get("height", size[1])
            box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}">'
            found.append(Drawing(style, index, name, f"{svg}{icon['body']}</svg>"))
    return found


def _icon_names(noun: Noun, style: str) -> tuple[str, ...]:
    return noun.fxemoji if style == "fxemoji" else noun.icons


def render(svg: str, tile: int = TILE) -> np.ndarray:
    """uint8 [tile, tile, 4], straight alpha: the drawing cropped to what it shows and centred in a square."""
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=2 * tile, height=2 * tile))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    if box is None:
        raise ValueError("the drawing is empty")
    side = max(box[2] - box[0], box[3] - box[1]) + 4
    x, y = (box[0] + box[2] - side) // 2, (box[1] + box[3] - side) // 2
    return np.asarray(image.crop((x, y, x + side, y + side)).resize((tile, tile), Image.Resampling.LANCZOS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder of the unpacked @iconify-json packages")
    parser.add_argument("--work", type=Path, default=Path("build/gem_tiny"))
    parser.add_argument("--tile", type=int, default=TILE, help="side of a tile in pixels")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    every = [d for style in TRAINING_STYLES + HELD_OUT_STYLES for d in drawings(args.packages, style)]
    for style in TRAINING_STYLES + HELD_OUT_STYLES:
        have = {d.noun for d in every if d.style == style}
        lacking = [noun.name for i, noun in enumerate(NOUNS) if i not in have]
        print(f"{style}: {sum(d.style == style for d in every)} drawings, lacks {lacking}", file=sys.stderr)
    out = args.work / f"icons{args.tile}.npz"
    np.savez(
        out,
        rgba=np.stack([render(d.svg, args.tile) for d in every]),
        noun=np.array([d.noun for d in every]),
        style=np.array([d.style for d in every]),
        icon=np.array([d.icon for d in every]),
    )
    print(f"{out}: {len(every)} drawings", file=sys.stderr)


if __name__ == "__main__":
    main()
