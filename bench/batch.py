"""Many files, end to end: `python -m gem_fast.bench.batch [--quick]` (`make bench-batch`).

The pipeline against what its cores allow, its memory, and what feeding costs with an engine that costs nothing.
"""

import json
import sys
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import gem_fast
from gem_fast.batch import BatchOptions, Progress
from gem_fast.batch.records import PARTIAL
from gem_fast.batch.sources import Source
from gem_fast.batch.stores import FileStore
from gem_fast.batch.work import ImageWork
from gem_fast.terminal import say
from gem_fast.writing import write_whole

from .batch_images import generated, memory, photos
from .machine import machine_line
from .tables import markdown_table

CORES, CLASSES = 2, 150
WORDS = ["cat", "rocket", "dog", "car", "tree", "house", "umbrella", "apple"]
# Milliseconds of one core an image that are allowed: a half, a sixth and a third of what the loop before it took.
GOALS = {"web": (6.1 / 2, 35 / 6, 42 / 3), "camera": (None, None, 1156 / 3)}


class FreeDecoder:
    """A model whose score decoding costs nothing: the same labels for every image."""

    def __init__(self, model: Any, labels: np.ndarray) -> None:
        self.model, self.host_decoder = model, SimpleNamespace(labels=lambda *_: labels)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def timed(step: Callable[[], Any], count: int) -> tuple[float, float]:
    """Seconds of CPU, and of time, an image."""
    cpu, start = time.process_time(), time.perf_counter()
    step()
    return (time.process_time() - cpu) / count, (time.perf_counter() - start) / count


def image_work(model: Any, query: Any, out: Path, overlays: bool) -> ImageWork:
    options = BatchOptions(overlays=overlays)
    return ImageWork(model, query, options, FileStore(out, options.kinds))


def alone(model: Any, paths: Sequence[Path], out: Path, threads: int) -> tuple[float, float, float]:
    """CPU seconds an image of the feed and of the engine, each by itself, and the engine's in time."""
    torch.set_num_threads(threads)
    seconds, groups, scored = defaultdict[str, float](float), defaultdict[Any, list[Any]](list), list[Any]()
    query = model.query(WORDS)
    work = image_work(model, query, out, overlays=True)
    (out / PARTIAL).mkdir(parents=True)

    def prepare() -> None:
        for path in paths:
            held, pixels, shape = work.prepare(Source(path, f"{path.parent.name}-{path.name}", 0), seconds)
            groups[shape].append((held, pixels))

    def encode() -> None:
        for shape, group in groups.items():
            for batch in (group[start : start + 8] for start in range(0, len(group), 8)):
                scores = model.score_on_host(np.stack([pixels for _, pixels in batch]), shape, query)
                scored.extend((held, own) for (held, _), own in zip(batch, scores, strict=True))

    before, engine = timed(prepare, len(paths))[0], timed(encode, len(paths))
    after = timed(lambda: [work.finish(held, own, seconds) for held, own in scored], len(paths))[0]
    return before + after, *engine


def run(model: Any, folder: Path, out: Path, marks: Sequence[int] = ()) -> dict[str, Any]:
    """One run: its statistics, memory in MB when so many images were done, and the images that failed."""
    torch.set_num_threads(CORES)
    progress, sizes = Progress(), []

    def tell(record: Any) -> None:
        if progress.done + progress.failed in marks:
            sizes.append(memory())

    gem_fast.segment_files(model, folder, WORDS, out, progress=progress, on_record=tell)
    failed = [record.image for record in gem_fast.records(out) if record.status == "failed"]
    return {"stats": progress.told(), "memory": sizes, "failed": sorted(failed)}


def feed(model: Any, paths: Sequence[Path], out: Path, decodes: bool, overlays: bool) -> dict[str, Any]:
    """CPU milliseconds an image with an engine that costs nothing, or a decoder that does not either, on one core."""
    torch.set_num_threads(1)
    query, seconds = model.query([f"thing {i}" for i in range(150)]), defaultdict[str, float](float)
    coarse = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 150, 5, 7)).astype(np.float32)) / 4
    own = image_work(model, query, out, overlays)
    (out / PARTIAL).mkdir(parents=True, exist_ok=True)
    held, _, (height, width) = own.prepare(Source(paths[0], "0", 0), seconds)
    scores = torch.nn.functional.interpolate(coarse, (height // 16, width // 16), mode="bilinear")[0].numpy()
    settings = (150, held.label_size, query.logit_scale, query.threshold)
    free = FreeDecoder(model, model.host_decoder.labels(scores, *settings))
    work = own if decodes else replace(own, model=cast(Any, free))
    seconds.clear()

    def one(path: Path) -> Any:
        return work.finish(work.prepare(Source(path, path.stem, 0), seconds)[0], scores, seconds)

    spent, _ = timed(lambda: [one(path) for path in paths], len(paths))
    # Stages are timed by the clock, which on a busy machine runs on: they are shares of what the CPU took.
    share = spent / sum(seconds.values())
    return {"ms": spent * 1e3, "stages": {name: value * share for name, value in seconds.items()}}


def loader(paths: Sequence[Path]) -> float:
    """CPU milliseconds an image of a PyTorch `DataLoader` that reads and resizes by torchvision, in this process."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.functional import resize

    def read(paths: list[Path]) -> torch.Tensor:
        return resize(decode_image(str(paths[0]), ImageReadMode.RGB), [448], antialias=True)

    batches: Any = torch.utils.data.DataLoader(paths, batch_size=1, collate_fn=read)  # type: ignore[arg-type]
    return timed(lambda: list(batches), len(paths))[0] * 1e3


def archived(model: Any, folder: Path, out: Path, count: int) -> dict[str, float]:
    """Seconds that small images take as files, read from a tar and a Parquet, and written into them."""
    paths = photos(folder / f"small-{count}", (96, 96), count)
    tar, table = out / "small.tar", out / "small.parquet"
    with tarfile.open(tar, "w") as archive:
        for path in paths:
            archive.add(path, path.name)
    images = {"key": [path.name for path in paths], "image": [path.read_bytes() for path in paths]}
    pq.write_table(pa.table(images), table, row_group_size=500)
    seconds = {}
    written: list[Any] = [("as files", paths, "files"), ("into tar", paths, "tar"), ("into Parquet", paths, "parquet")]
    for name, inputs, form in [*written, ("from tar", tar, "files"), ("from Parquet", table, "files")]:
        start = time.perf_counter()
        gem_fast.segment_files(model, inputs, WORDS, out / name, size=32, overlays=False, format=form)
        seconds[name] = time.perf_counter() - start
    return seconds


def measure(folder: Path, out: Path, quick: bool, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All of it; `keep` is called with what there is after each part."""
    tiny, large = gem_fast.load("gem-tiny"), gem_fast.load("ViT-B-16", "random", dtype="bfloat16")
    count, marks, few = (100, (10, 100), 3) if quick else (10_000, (1_000, 10_000), 500)
    found: dict[str, Any] = {"machine": machine_line(), "quick": quick}
    for name, size, many in (("web", (640, 480), 100), ("camera", (4000, 3000), 6)):
        paths = photos(folder / name, size, many)
        cases = [feed(tiny, paths, out / "feed", *each) for each in ((False, False), (False, True), (True, True))]
        found[name] = {"cases": cases, "loader": loader(paths)}
    keep(found)
    whole, broken = generated(folder / f"mixed-{count}", count)
    fed, engine, _ = alone(tiny, whole[:: max(1, len(whole) // 200)], out / "alone", 1)
    found["gem-tiny"] = told = run(tiny, folder / f"mixed-{count}", out / "tiny", marks)
    found |= {"feed": fed, "engine": engine}
    told |= {"allowed": CORES / (fed + engine), "all named": told["failed"] == sorted(map(str, broken))}
    keep(found)
    whole, broken = generated(folder / f"mixed-{few}", few)
    _, engine, _ = alone(large, whole[:16], out / "large core", 1)
    *_, together = alone(large, whole, out / "large alone", CORES)
    found["ViT-B-16"] = told = run(large, folder / f"mixed-{few}", out / "large")
    told |= {"allowed": few / len(whole) / together, "engine": engine}
    keep(found)
    found["small"] = archived(tiny, folder, out, count)
    keep(found)
    return found


def table(found: dict[str, Any]) -> list[str]:
    rows = []
    for name in ("gem-tiny", "ViT-B-16"):
        rate, allowed = found[name]["stats"]["images_per_second"], found[name]["allowed"]
        rows.append(
            [f"{name}: images/s, of those allowed", f"{rate:.2f} of {allowed:.2f}: {rate / allowed:.0%}", "≥ 95%"]
        )
    (first, last), named = found["gem-tiny"]["memory"], found["gem-tiny"]["all named"]
    rows.append(["memory after a tenth, at the end", f"{first:.0f} MB, {last:.0f} MB: {last / first - 1:+.1%}", "≤ 5%"])
    rows.append(["broken files, all named", str(named), "True"])
    rows += [[f"small images {way}, s", f"{spent:.1f}", "≤ as files"] for way, spent in found["small"].items()]
    labels = ("labels, decoder free", "with overlays, decoder free", "all on the CPU")
    for name in GOALS:
        for label, case, goal in zip(labels, found[name]["cases"], GOALS[name], strict=True):
            rows.append([f"{name}: {label}, ms", f"{case['ms']:.2f}", f"≤ {goal:.3g}" if goal else ""])
        rows.append([f"{name}: a DataLoader with torchvision reads, ms", f"{found[name]['loader']:.2f}", ""])
    return list(markdown_table(["what", "measured", "goal"], rows))


def main(path: Path, quick: bool) -> None:
    """Measure, and write the file as parts come: a whole run takes the better part of an hour."""
    torch.set_num_threads(CORES)
    path.parent.mkdir(parents=True, exist_ok=True)

    def keep(found: dict[str, Any]) -> None:
        write_whole(path, json.dumps(found, indent=1, default=str).encode())

    with TemporaryDirectory(dir=path.parent) as scratch:
        found = measure(path.parent, Path(scratch), quick, keep)
    say("\n".join([found["machine"], "", *table(found)]))


if __name__ == "__main__":
    main(Path("build/batch/batch.json"), "--quick" in sys.argv)
