"""Images for the pipeline, made from the package's samples with a seed, and the memory of a run."""

from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

SAMPLES = Path(__file__).parents[1] / "gem_fast" / "samples"
_ENDINGS = (".jpg",) * 6 + (".png", ".webp", ".bmp", ".gif")
_BROKEN = 100  # every so many one is cut off


def generated(folder: Path, count: int) -> tuple[list[Path], list[Path]]:
    """Images of mixed sizes and formats below a folder, those that are whole and those that are broken."""
    rng, paths = np.random.default_rng(0), []
    scenes = [Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.jpg"))]
    for i in range(count):
        paths.append(folder / f"{i // 1000:03d}" / f"{i % 1000:03d}{_ENDINGS[rng.integers(len(_ENDINGS))]}")
        width, height, left, top, length = rng.integers((320, 320, 0, 0, 0), (640, 640, 99, 99, 200)).tolist()
        if not paths[-1].exists():
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            scene = scenes[i % len(scenes)].resize((width, height), box=(left, top, left + 200, top + 190))
            scene.save(paths[-1])
            if i % _BROKEN == 0:
                paths[-1].write_bytes(paths[-1].read_bytes()[:length])
    return [path for i, path in enumerate(paths) if i % _BROKEN], paths[::_BROKEN]


def photos(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """JPEGs of a width and height, with a camera's noise."""
    rng, paths = np.random.default_rng(1), [folder / f"{i}.jpg" for i in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        if not path.exists():
            pixels = np.asarray(Image.open(SAMPLES / "coffee.jpg").resize(size, Image.Resampling.BICUBIC))
            noisy = pixels + rng.normal(scale=4, size=pixels.shape).astype(np.float32)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=88)
    return paths


def memory(pid: str = "self") -> float:
    """MB of a process and those that it started, what they share counted once; libraries, which others map, are not."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
        below = [each for path in Path(f"/proc/{pid}").glob("task/*/children") for each in path.read_text().split()]
    except OSError:  # it has ended meanwhile
        return 0.0
    own = sum(int(size) for name, size in pairwise(lines) if name in ("Pss_Anon:", "Pss_Shmem:"))
    return own / 1024 + sum(map(memory, below))
