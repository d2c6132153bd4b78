"""The loop over many files: read ahead, segment in batches, write, and go on when one fails."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..images import EXTENSIONS, ImageError, load_image
from ..prompts import parse_classes
from ..writing import write_whole
from .records import SUMMARY, Record, finished_images
from .sources import Job, find_images, with_distinct_stems

if TYPE_CHECKING:
    from ..segmentation import Segmentation
    from ..segmenter import Segmenter


def segment_files(
    model: "Segmenter",
    images: str | os.PathLike | Iterable[str | os.PathLike],
    prompts: Any,
    out: str | os.PathLike,
    *,
    overlays: bool = True,
    heatmaps: bool = False,
    resume: bool = False,
    batch_size: int = 8,
    on_start: Callable[[int], None] | None = None,
    on_record: Callable[[Record], None] | None = None,
    **settings: Any,
) -> list[Record]:
    """Segment files into a folder; an image that fails is recorded, and the rest goes on.

    Args:
        model: from `gem_fast.load`, or a `GemRuntime`.
        images: files, folders and glob patterns, or one of them.
        prompts: the classes, the same for all images, as `segment` takes them.
        out: output folder. Gets a label image, a legend and an overlay for each image, and `summary.jsonl` with one
            line an image, written as soon as it is finished.
        overlays: off leaves out the overlays, each of which takes several times as long as its labels.
        heatmaps: also write the heat maps, as `.npz`.
        resume: keep what an earlier run into `out` finished (same images by path and with the same kinds of files,
            whatever its prompts and settings were), and do the rest.
        batch_size: images in one forward.
        on_start: called with the number of images to do.
        on_record: called with each image's record.
        **settings: of the model's `segment`: background, size, resize, threshold, logit_scale, templates.

    Returns:
        The records of this run, in the order of the images.

    Raises:
        ValueError: an argument is wrong, or there is no image. OSError: the output folder can't be written.
    """
    jobs = find_images(images)
    if not jobs:
        raise ValueError(f"no images found; in folders these endings are looked for: {', '.join(sorted(EXTENSIONS))}")
    parse_classes(prompts)
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"the output folder {out} is a file")
    out.mkdir(parents=True, exist_ok=True)
    save = {"overlay": overlays, "heatmaps": heatmaps}
    finished = finished_images(out, {"labels", *(kind for kind, wanted in save.items() if wanted)}) if resume else {}
    # Names that the earlier run gave to other inputs stay theirs.
    kept = [json.loads(line)["files"]["labels"].removesuffix(".labels.png") for line in finished.values()]
    jobs = with_distinct_stems({job.path: job.stem for job in jobs if str(job.path) not in finished}, kept)
    # The kept records are written anew: a line cut off and failures that get another try are gone.
    write_whole(out / SUMMARY, "".join(finished.values()).encode(errors="backslashreplace"))
    if on_start:
        on_start(len(jobs))
    records = []
    with (
        open(out / SUMMARY, "a", encoding="utf-8", errors="backslashreplace") as summary,
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as reader,
    ):
        for window in _read_ahead(reader, jobs, batch_size):
            for record in _process(model, window, prompts, out, save, {"batch_size": batch_size, **settings}):
                summary.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
                summary.flush()
                records.append(record)
                if on_record:
                    on_record(record)
    return records


Loaded = tuple[Job, "Image.Image | ImageError"]


def _read_ahead(reader: ThreadPoolExecutor, jobs: list[Job], window: int) -> Iterator[list[Loaded]]:
    """Windows of read images; while one is worked on, the next is read."""

    def read(chunk: list[Job]) -> list[Loaded]:
        return [(job, _try_load(job.path)) for job in chunk]

    coming: Future[list[Loaded]] | None = None
    for start in range(0, len(jobs), window):
        ready, coming = coming, reader.submit(read, jobs[start : start + window])
        if ready:
            yield ready.result()
    if coming:
        yield coming.result()


def _try_load(path: Path) -> "Image.Image | ImageError":
    try:
        return load_image(path)
    except ImageError as error:
        return error


def _process(
    model: "Segmenter", window: list[Loaded], prompts: Any, out: Path, save: dict[str, bool], settings: dict[str, Any]
) -> Iterator[Record]:
    """Records of one window's images, in their order; `save` tells `Segmentation.save` what to write."""
    pictures = [loaded for _, loaded in window if isinstance(loaded, Image.Image)]
    try:
        results: list[Segmentation | None] = list(model.segment(pictures, prompts, **settings)) if pictures else []
    except (ImageError, RuntimeError, MemoryError):
        # Something about one image, such as its size, broke the batch: find it by taking them one by one.
        results = [None] * len(pictures)
    queue = iter(results)
    for job, loaded in window:
        if isinstance(loaded, ImageError):
            yield Record(str(job.path), "failed", error=str(loaded))
            continue
        result = next(queue)
        try:
            result = result or model.segment(loaded, prompts, **settings)
            paths = result.save(out, job.stem, **save)
        except (ImageError, RuntimeError, MemoryError, OSError) as error:
            yield Record(str(job.path), "failed", error=f"{job.path}: {type(error).__name__}: {error}")
            continue
        files = {kind: str(path.relative_to(out)) for kind, path in paths.items()}
        yield Record(str(job.path), "ok", None, *result.size, areas=result.areas(), files=files)
