"""The sample images of this package, and what `gem-fast demo` makes of them with its embedded model."""

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from .writing import write_whole

if TYPE_CHECKING:
    from .segmenter import Segmenter

SAMPLES = files("gem_fast") / "samples"
PHOTOS = {"chelsea.jpg": ["cat"], "rocket.jpg": ["rocket"]}  # gem-tiny has only seen drawings


def sample_prompts() -> dict[str, list[str]]:
    """Words to look for in each sample image, by its file name."""
    return json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8")) | PHOTOS


def copy_samples(folder: Path) -> list[Path]:
    """The sample images as files in a folder, which is made."""
    copies = [folder / name for name in sample_prompts()]
    for path in copies:
        write_whole(path, (SAMPLES / path.name).read_bytes())
    return copies


def run(model: "Segmenter", out: Path) -> list[Path]:
    """Write the samples, below `images`, and their overlays, labels and heat maps; returns the overlays.

    Raises:
        OSError: a file can't be written.
    """
    overlays = []
    for image in copy_samples(out / "images"):
        words = sample_prompts()[image.name]
        result = model.segment(image, words)
        overlays.append(result.save(out)["overlay"])
        for word in words:
            result.overlay(word).save(out / f"{image.stem}.{word}.png")
    return overlays
