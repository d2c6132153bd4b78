"""Measure the stages' rates here: `python -m gem_fast.bench.scaling.rates [folder]` writes `rates.json`.

Each stage is the code that `gem_fast.segment_files` runs. Those of a single thread are timed with one process and with
a process on every core at once; encoding in processes of its own, in turns, with one thread and with all.
"""

import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gem_fast.writing import write_whole

from ..ceiling import copy_rate
from ..machine import machine, machine_line
from ..measure import Figure, measure
from ..measure import Plan as Turns
from ..processes import ProviderProcess
from ..providers import Provider, Subject
from ..subjects import make_subject, random_pixels

MODEL, SIZE, CLASSES, PATCHES, EMBEDDING = "ViT-B-16", 448, 150, 28, 512
DTYPES = ("float32", "bfloat16")
BATCHES = {1: 5, 4: 3}  # and the rounds of each
SAMPLE = "rocket.jpg"
PHOTOS = {"web": 1, "camera": 7}  # the sample as it is, and a mosaic of 7 × 6 of it, as large as a camera's photo
REPEATS = {"web": 15, "camera": 4}
END_TO_END = (4, 16)  # images of a short and a long run: their difference has no start in it


def make_photo(name: str, folder: Path) -> Path:
    """A JPEG of that kind, as detailed per pixel as the sample."""
    sample = files("gem_fast") / "samples" / SAMPLE
    path, across = folder / f"{name}.jpg", PHOTOS[name]
    if across == 1:
        path.write_bytes(sample.read_bytes())
        return path
    with sample.open("rb") as file:
        tile = Image.open(file).convert("RGB")
    mosaic = Image.new("RGB", (across * tile.width, (across - 1) * tile.height))
    for i in range(across * (across - 1)):
        mosaic.paste(tile, (i % across * tile.width, i // across * tile.height))
    mosaic.save(path, quality=90)
    return path


def stages(photo: Path, out: Path) -> dict[str, Callable[[], Any]]:
    """The stages before and after encoding, each a call; scores are random and smooth, of 150 classes."""
    from gem_fast.decoding import KernelDecoder
    from gem_fast.images import load_image
    from gem_fast.outputs import png_bytes
    from gem_fast.preprocess import to_pixels
    from gem_fast.scores import score_patches
    from gem_fast.segmentation import Segmentation

    image, generator = load_image(photo), torch.Generator().manual_seed(0)
    coarse = torch.randn(1, EMBEDDING, 7, 7, generator=generator)
    features = torch.nn.functional.interpolate(coarse, (PATCHES, PATCHES), mode="bilinear").permute(0, 2, 3, 1)
    patches = torch.nn.functional.normalize(features, dim=-1)
    words = torch.nn.functional.normalize(torch.randn(CLASSES, EMBEDDING, generator=generator), dim=-1)

    def segmentation() -> Segmentation:
        scores = score_patches(patches, words, [1] * CLASSES)[0]
        return Segmentation(image, tuple(f"class {i}" for i in range(CLASSES)), scores, 0.5, 100.0, KernelDecoder())

    done = segmentation()
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    return {
        "decode": lambda: load_image(photo),
        "resize": lambda: to_pixels(image, (SIZE, SIZE), mean, std),
        "labels": lambda: segmentation().labels,
        "write labels": lambda: write_whole(out / "a.labels.png", png_bytes(done.label_image())),
        "write overlay": lambda: write_whole(out / "a.overlay.png", png_bytes(done.overlay())),
    }


@torch.inference_mode()
def stage_seconds(photo: str, repeats: int) -> dict[str, float]:
    """Medians of the stages, taken in turns on one thread."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        calls = stages(Path(photo), Path(folder))
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(1 + repeats):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if turn:
                    taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def photo_rates(name: str, folder: Path, cores: int) -> dict[str, Any]:
    """Sizes of a photo and of what is written, and its stages' seconds, alone and with every core at it."""
    path = make_photo(name, folder)
    calls = stages(path, folder)
    calls["write labels"](), calls["write overlay"]()
    with Image.open(path) as image:
        size = image.size
    found: dict[str, Any] = {"width": size[0], "height": size[1], "jpeg_bytes": path.stat().st_size}
    found |= {f"{kind}_bytes": (folder / f"a.{kind}.png").stat().st_size for kind in ("labels", "overlay")}
    for key, processes in (("alone", 1), ("busy", cores)):
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            told = pool.starmap(stage_seconds, [(str(path), REPEATS[name])] * processes, chunksize=1)
        found[key] = {stage: statistics.fmean(each[stage] for each in told) for stage in told[0]}
    return found


def encode_rates(subject: Subject, cores: int) -> list[dict[str, Any]]:
    """Seconds an image of the forward, in turns: on one thread and on all at batch 1, on all at batch 4."""
    with ProviderProcess(Provider("reference", "eager"), subject) as eager:
        references = {batch: _ends(eager, random_pixels(batch, SIZE)) for batch in BATCHES}
    found = []
    with ExitStack() as stack:
        running = [
            (
                threads,
                stack.enter_context(ProviderProcess(Provider("engine", "engine", dtype), subject, threads=threads)),
            )
            for dtype in DTYPES
            for threads in sorted({1, cores})
        ]
        for batch, rounds in BATCHES.items():
            chosen = [(threads, process) for threads, process in running if batch == 1 or threads == cores]
            pixels = random_pixels(batch, SIZE)
            figures = measure([process for _, process in chosen], pixels, references[batch], Turns(rounds))
            found += [_encoded(figure, threads) for (threads, _), figure in zip(chosen, figures, strict=True)]
    return found


def _ends(eager: ProviderProcess, pixels: np.ndarray) -> np.ndarray:
    """Features of the first and of the last image."""
    features = [eager.forward(image[None], answer=True).features for image in pixels[[0, -1]]]
    return np.concatenate([found for found in features if found is not None])


def _encoded(figure: Figure, threads: int) -> dict[str, Any]:
    if figure.refused:
        raise RuntimeError(f"{figure.provider.key}: {figure.refused}")
    seconds = {"seconds": figure.median / figure.batch, "peak_mb": figure.peak_mb}
    return {"dtype": figure.provider.dtype, "batch": figure.batch, "threads": threads} | seconds


def end_to_end(folder: Path) -> dict[str, Any]:
    """Seconds an image of `segment_files` on copies of the web photo, bfloat16, batches of 4, all threads."""
    import gem_fast

    model = gem_fast.load(MODEL, "random", dtype="bfloat16")
    photo, totals = make_photo("web", folder), []
    for count in (END_TO_END[0], *END_TO_END):  # the first warms up, and encodes the words
        copies = folder / f"{count}"
        copies.mkdir(exist_ok=True)
        for i in range(count):
            shutil.copy(photo, copies / f"{i}.jpg")
        start = time.perf_counter()
        words = [f"class {i}" for i in range(CLASSES)]
        gem_fast.segment_files(
            model, copies, words, folder / "out", batch_size=4, size=SIZE, resize="squash", threshold=0.5
        )
        totals.append(time.perf_counter() - start)
    return {"photo": "web", "dtype": "bfloat16", "batch": 4,
            "seconds": (totals[2] - totals[1]) / (END_TO_END[1] - END_TO_END[0])}  # fmt: skip


def main(folder: str = "bench/reports") -> None:
    """Measure everything and write the file."""
    facts = machine()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        record = {
            "command": "python -m gem_fast.bench.scaling.rates",
            "machine": facts,
            "machine_line": machine_line(facts),
            "cores": facts["cores"],
            "model": MODEL, "size": SIZE, "classes": CLASSES,
            "copy_bytes_per_second": copy_rate(),
            "photos": {name: photo_rates(name, place, facts["cores"]) for name in PHOTOS},
            "encode": encode_rates(make_subject(MODEL, place), facts["cores"]),
            "end_to_end": end_to_end(place),
        }  # fmt: skip
    write_whole(Path(folder) / "rates.json", (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
