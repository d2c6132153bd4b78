"""Many files, end to end: `python -m gem_fast.bench.batch [--quick]` (`make bench-batch`).

The pipeline against what its cores allow, its memory, and what feeding costs with an engine that costs nothing.
"""

import argparse
import json
import resource
import tarfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
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
# Milliseconds of one core an image that are allowed: a half, a sixth and a third of what the loop before the pipeline
# (618fd34) took on the machine of `bench/reports/batch.json`.
GOALS = {"web": (7.82 / 2, 56.6 / 6, 67.2 / 3), "camera": (None, None, 2312 / 3)}
TURNS = 3  # of each way of holding small images


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
    """One run: its statistics, the share of the cores' time that it took, memory in MB when so many images were done,
    and the images that failed."""
    torch.set_num_threads(CORES)
    progress, sizes, cpu = Progress(), [], spent()

    def tell(record: Any) -> None:
        if progress.done + progress.failed in marks:
            sizes.append(memory())

    gem_fast.segment_files(model, folder, WORDS, out, progress=progress, on_record=tell)
    stats, cpu = progress.told(), spent() - cpu
    failed = sorted(record.image for record in gem_fast.records(out) if record.status == "failed")
    return {"stats": stats, "busy": cpu / CORES / stats["seconds"], "memory": sizes, "failed": failed}


def spent() -> float:
    """CPU seconds of this process and those that it started, once they have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


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

    cpu, _ = timed(lambda: [one(path) for path in paths], len(paths))
    # Stages are timed by the clock, which on a busy machine runs on: they are shares of what the CPU took.
    share = cpu / sum(seconds.values())
    return {"ms": cpu * 1e3, "stages": {name: value * share for name, value in seconds.items()}}


def loader(paths: Sequence[Path]) -> float:
    """CPU milliseconds an image of a PyTorch `DataLoader` that reads and resizes by torchvision, in this process."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.functional import resize

    def read(paths: list[Path]) -> torch.Tensor:
        return resize(decode_image(str(paths[0]), ImageReadMode.RGB), [448], antialias=True)

    batches: Any = torch.utils.data.DataLoader(paths, batch_size=1, collate_fn=read)  # type: ignore[arg-type]
    return timed(lambda: list(batches), len(paths))[0] * 1e3


def archived(model: Any, folder: Path, out: Path, count: int) -> dict[str, float]:
    """Seconds that small images take as files, from a tar and a Parquet, and into them: medians of turns."""
    paths = photos(folder / f"small-{count}", (96, 96), count)
    tar, table = out / "small.tar", out / "small.parquet"
    with tarfile.open(tar, "w") as archive:
        for path in paths:
            archive.add(path, path.name)
    images = {"key": [path.name for path in paths], "image": [path.read_bytes() for path in paths]}
    pq.write_table(pa.table(images), table, row_group_size=500)
    seconds = defaultdict[str, list[float]](list)
    written: list[Any] = [("as files", paths, "files"), ("into tar", paths, "tar"), ("into Parquet", paths, "parquet")]
    ways = [*written, ("from tar", tar, "files"), ("from Parquet", table, "files")]
    for turn, (name, inputs, form) in product(range(TURNS), ways):
        start = time.perf_counter()
        into = out / f"{name} {turn}"
        gem_fast.segment_files(model, inputs, WORDS, into, size=32, overlays=False, format=form)
        seconds[name].append(time.perf_counter() - start)
    return {name: median(each) for name, each in seconds.items()}


def measure(folder: Path, out: Path, counts: tuple[int, int], keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All of it, with so many images for gem-tiny and ViT-B/16; `keep` gets what there is after each part."""
    tiny, (count, few) = gem_fast.load("gem-tiny"), counts
    found: dict[str, Any] = {"machine": machine_line(), "images": count}
    for name, size, many in (("web", (640, 480), 100), ("camera", (4000, 3000), 6)):
        paths = photos(folder / name, size, many)
        cases = [feed(tiny, paths, out / "feed", *each) for each in ((False, False), (False, True), (True, True))]
        found[name] = {"cases": cases, "loader": loader(paths)}
    keep(found)
    whole, broken = generated(folder / f"mixed-{count}", count)
    sample, tenth = whole[:: max(1, len(whole) // 200)], count // 10
    marks = (*range(tenth // 10, tenth, tenth // 10), *range(tenth, count + 1, tenth))
    before = alone(tiny, sample, out / "alone", 1)
    found["gem-tiny"] = told = run(tiny, folder / f"mixed-{count}", out / "tiny", marks)
    # A core's speed drifts: what it does alone is measured on both sides of the run.
    after = alone(tiny, sample, out / "alone after", 1)
    found |= {"feed": (before[0] + after[0]) / 2, "engine": (before[1] + after[1]) / 2}
    told |= {"allowed": CORES / (found["feed"] + found["engine"])}
    told |= {"all named": told["failed"] == sorted(map(str, broken))}
    keep(found)
    found["small"] = archived(tiny, folder, out, count)
    keep(found)
    large = gem_fast.load("ViT-B-16", "random", dtype="bfloat16")
    whole, broken = generated(folder / f"mixed-{few}", few)
    _, engine, _ = alone(large, whole[:16], out / "large core", 1)
    *_, together = alone(large, whole, out / "large alone", CORES)
    found["ViT-B-16"] = told = run(large, folder / f"mixed-{few}", out / "large")
    told |= {"allowed": few / len(whole) / together, "engine": engine}
    keep(found)
    return found


def table(found: dict[str, Any]) -> list[str]:
    rows = []
    for name in ("gem-tiny", "ViT-B-16"):
        rate, allowed = found[name]["stats"]["images_per_second"], found[name]["allowed"]
        share, busy = f"{rate:.2f} of {allowed:.2f}: {rate / allowed:.1%}", f"{found[name]['busy']:.1%}"
        rows += [[f"{name}: images/s, of those allowed", share, "≥ 95%"], [f"{name}: cores busy", busy, ""]]
    sizes, named = found["gem-tiny"]["memory"], found["gem-tiny"]["all named"]
    tenth, end = sizes[9], sizes[-1]
    rows.append(["memory after a tenth, at the end", f"{tenth:.0f} MB, {end:.0f} MB: {end / tenth - 1:+.1%}", "≤ 5%"])
    rows.append(["most memory", f"{max(sizes):.0f} MB", ""])
    rows.append(["broken files, all named", str(named), "True"])
    rows += [[f"small images {way}, s", f"{spent:.1f}", "≤ as files"] for way, spent in found["small"].items()]
    labels = ("labels, decoder free", "with overlays, decoder free", "all on the CPU")
    for name in GOALS:
        for label, case, goal in zip(labels, found[name]["cases"], GOALS[name], strict=True):
            rows.append([f"{name}: {label}, ms", f"{case['ms']:.2f}", f"≤ {goal:.3g}" if goal else ""])
        rows.append([f"{name}: a DataLoader with torchvision reads, ms", f"{found[name]['loader']:.2f}", ""])
    return list(markdown_table(["what", "measured", "goal"], rows))


def main(path: Path) -> None:
    """Measure, and write the file as parts come: a whole run takes the better part of an hour."""
    parser = argparse.ArgumentParser(prog="python -m gem_fast.bench.batch", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look at a few images, not a result")
    parser.add_argument("--large", type=int, default=500, help="images for ViT-B/16 (default: %(default)s)")
    asked = parser.parse_args()
    torch.set_num_threads(CORES)
    path.parent.mkdir(parents=True, exist_ok=True)

    def keep(found: dict[str, Any]) -> None:
        write_whole(path, json.dumps(found | {"quick": asked.quick}, indent=1, default=str).encode())

    with TemporaryDirectory(dir=path.parent) as scratch:
        found = measure(path.parent, Path(scratch), (100, 3) if asked.quick else (10_000, asked.large), keep)
    say("\n".join([found["machine"], "", *table(found)]))


if __name__ == "__main__":
    main(Path("build/batch/batch.json"))
