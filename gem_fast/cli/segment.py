"""`gem-fast segment`."""

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..dtypes import INT8
from ..terminal import fail
from .job import Job
from .job_local import run_here
from .job_ray import run_on_ray
from .options import (
    GemBlocks,
    InverseTemperature,
    Iterations,
    MethodName,
    ModelName,
    PoolingName,
    Pretrained,
    Resize,
    Rotated,
    Sigmoid,
    TextDtype,
    Tokenizer,
    Weights,
    chosen,
    dtype_option,
)
from .progress import Style

if TYPE_CHECKING:
    from gem_fast.segmenter import Segmenter

# Options of the torch engine that say nothing about an exported model.
_ENGINE_ONLY = (
    "model",
    "pretrained",
    "weights",
    "tokenizer",
    "dtype",
    "text_dtype",
    "device",
    "text_cache",
    "method",
    "gem_blocks",
    "iterations",
    "inverse_temperature",
    "pooling",
    "rotated",
    "sigmoid",
)
_LOCAL_ONLY = ("workers", "timeout", "retries", "max_errors", "progress", "stats")
_RAY_ONLY = ("address", "checkpoint", "actors")
_RUNTIME_ONLY = ("provider", "engine_cache", "precision", "threads")


class Overlay(str, Enum):
    jpeg = "jpeg"
    png = "png"
    webp = "webp"


class Format(str, Enum):
    files = "files"
    tar = "tar"
    parquet = "parquet"
    coco = "coco"


class Engine(str, Enum):
    local = "local"
    ray = "ray"


def segment(
    context: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders (with subfolders), glob patterns, @LIST (a file with one a line), - (standard input), "
            ".tar, .parquet, .arrow, URLs."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output folder.")],
    prompt: Annotated[list[str] | None, typer.Option(help="A class; repeat for more.")] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="Text file with a class a line, synonyms separated by commas.")
    ] = None,
    background: Annotated[
        list[str] | None, typer.Option(help="What else the images may show; competes, and is labelled 0. Repeatable.")
    ] = None,
    model: ModelName = "gem-tiny",
    pretrained: Pretrained = None,
    weights: Weights = None,
    tokenizer: Tokenizer = None,
    dtype: Annotated[str, dtype_option("Type of the vision transformer", also=(INT8,))] = "float32",
    text_dtype: TextDtype = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda (all GPUs), cuda:1, mps.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward.")] = 8,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the model's input in pixels (default: the model's, mostly 448).")
    ] = None,
    resize: Annotated[
        Resize | None,
        typer.Option(
            help="What --size is: the shorter side (most models' default), both sides, or nothing (the image's own "
            "size). The default of an export with certain sizes is the nearest of them."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Confidence below which a pixel is background (default: the model's)."),
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Side of overlapping windows in which the resized image is read.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Pixels from a window to the next (default: half of --window).")
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(help="photo, imagenet (80 templates), or your own with {} for the class; repeatable."),
    ] = None,
    overlays: Annotated[
        bool,
        typer.Option(
            "--overlays/--no-overlays", help="Write overlays, each of which takes about as long as its labels."
        ),
    ] = True,
    overlay_format: Annotated[Overlay, typer.Option(help="Of overlays.")] = Overlay.jpeg,
    overlay_size: Annotated[
        int, typer.Option(min=0, help="Longest side of an overlay in pixels; 0 for the photo's own.")
    ] = 1600,
    label_size: Annotated[
        str | None, typer.Option(help="Of labels and heat maps: model, or their shorter side (default: the photo's).")
    ] = None,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Also write heat maps as .npz.")] = False,
    format: Annotated[
        Format, typer.Option(help="Of the output: a few files an image, or shards of many images.")
    ] = Format.files,
    shard_size: Annotated[int, typer.Option(min=1, help="Images in a shard.")] = 1000,
    part: Annotated[
        str | None, typer.Option(help="3/16 does every 16th image from the third on, into --out/part-03-of-16.")
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(help="local: processes of this machine; ray: actors of a Ray cluster, --format parquet or tar."),
    ] = Engine.local,
    address: Annotated[
        str | None, typer.Option(help="With --engine ray: of the cluster, or auto (default: one on this machine).")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="With --engine ray: folder or URL, for all nodes, that tells what is done.")
    ] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="With --engine ray: at most so many engines.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an earlier run into --out that asked the same.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew where an earlier run wrote, and remove its files.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many read and write beside the engine (default: one a core).")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Engines in processes of their own, which share the cores (default: one a GPU)."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0, help="Seconds that reading, writing or, in --processes, encoding an image may take.")
    ] = 300,
    retries: Annotated[int, typer.Option(min=0, help="How often an unreadable image is tried again.")] = 0,
    max_errors: Annotated[int | None, typer.Option(min=0, help="Stop when more images than this have failed.")] = None,
    progress: Annotated[
        Style, typer.Option(help="bar on a terminal, plain lines elsewhere (auto); json: a line a second.")
    ] = Style.auto,
    stats: Annotated[Path | None, typer.Option(help="JSON file for the times of each stage and the counts.")] = None,
    text_cache: Annotated[Path | None, typer.Option(help="Folder that keeps text embeddings between runs.")] = None,
    method: MethodName = "gem",
    feature_surgery: Annotated[
        bool, typer.Option("--feature-surgery", help="Score as CLIP Surgery does (--runtime: where exported so).")
    ] = False,
    gem_blocks: GemBlocks = None,
    iterations: Iterations = None,
    inverse_temperature: InverseTemperature = None,
    pooling: PoolingName = None,
    rotated: Rotated = False,
    sigmoid: Sigmoid = False,
    runtime: Annotated[
        Path | None,
        typer.Option(help="Folder of an exported model: runs it on ONNX Runtime, without torch, in place of --model."),
    ] = None,
    provider: Annotated[
        str, typer.Option(help="With --runtime: cpu, cuda, tensorrt, or another provider of ONNX Runtime.")
    ] = "cpu",
    engine_cache: Annotated[
        Path | None, typer.Option(help="With --runtime: folder that keeps TensorRT's engines and timings between runs.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="With --provider openvino: float32 (the default), float16 or accuracy.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="With --runtime: CPU threads (default: one a physical core).")
    ] = None,
) -> None:
    """Segment images by words: a label image and an overlay each, and a line in summary.jsonl.

    Exit status: 0 if all images are done, 1 if some failed, 2 if it could not start or go on, 130 if interrupted.
    """
    _check_engine(context, runtime, images)
    options = {
        "overlays": overlays,
        "overlay_format": overlay_format.value,
        "overlay_size": overlay_size,
        "label_size": int(label_size) if label_size and re.fullmatch("[0-9]{1,9}", label_size) else label_size,
        "heatmaps": heatmaps,
        "format": format.value,
        "shard_size": shard_size,
        "part": part,
        "resume": resume,
        "overwrite": overwrite,
        "batch_size": batch_size,
        "workers": workers,
        "processes": processes,
        "timeout": timeout or None,
        "retries": retries,
        "max_errors": max_errors,
        "background": background or (),
        "size": size,
        "resize": resize.value if resize else None,
        "threshold": threshold,
        "templates": templates or "photo",
        "window": window,
        "stride": stride,
    }
    settings = chosen(
        tokenizer=tokenizer,
        gem_blocks=gem_blocks,
        iterations=iterations,
        inverse_temperature=inverse_temperature,
        pooling=pooling,
        rotated=rotated,
        sigmoid=sigmoid,
    )

    def load() -> "Segmenter":
        if runtime is not None:
            from gem_fast.runtime import GemRuntime

            asked: dict[str, Any] = {"provider": provider, "cache": engine_cache, "threads": threads}
            asked |= {"precision": precision, "max_batch": batch_size, "feature_surgery": feature_surgery or None}
            return GemRuntime(runtime, **asked)
        import gem_fast

        always: dict[str, Any] = {"method": method, "feature_surgery": feature_surgery}
        always |= {"text_dtype": text_dtype, "text_cache": text_cache}
        return gem_fast.load(model, pretrained, weights=weights, device=device, dtype=dtype, **always, **settings)

    _check_given(context, engine)
    job = Job(load, images, prompt or [], prompts_file, out, options)
    if engine is Engine.ray:
        if not was_given(context, "format"):
            del options["format"]  # whose default is another one there
        run_on_ray(job, address=address, checkpoint=checkpoint, actors=actors, gpus=int("cuda" in device))
    else:
        run_here(job, progress, stats)


def _check_given(context: typer.Context, engine: Engine) -> None:
    """Leave if options of the one way to run were given to the other."""
    foreign = _RAY_ONLY if engine is Engine.local else _LOCAL_ONLY
    if given := [f"--{name.replace('_', '-')}" for name in foreign if was_given(context, name)]:
        fail(f"{', '.join(given)} {'can only go' if engine is Engine.local else 'can not go'} with --engine ray")


def _check_engine(context: typer.Context, runtime: Path | None, images: list[str]) -> None:
    """Leave if options of the one engine were given to the other, or if the export is not there."""
    foreign = _RUNTIME_ONLY if runtime is None else _ENGINE_ONLY
    if given := [name for name in foreign if was_given(context, name)]:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        fail(f"{named} can't go with --runtime" if runtime else f"{named} can only go with --runtime")
    if runtime is not None and not runtime.exists():
        exports = [each for each in images if Path(each, "manifest.json").is_file()]
        hint = f"; --runtime {exports[0]} would run the export there" if exports else ""
        fail(f"--runtime takes the folder of an exported model, and there is no folder {runtime}{hint}")


def was_given(context: typer.Context, name: str) -> bool:
    """Whether the user gave an option, rather than its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
