"""`gem-fast segment`."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..terminal import errors, fail, progress_bar, say, short_warnings
from .dtype_option import dtype_option

if TYPE_CHECKING:
    from gem_fast.segmenter import Segmenter

# Options of the torch engine that say nothing about an exported model.
_ENGINE_ONLY = (
    "model",
    "pretrained",
    "weights",
    "dtype",
    "device",
    "text_cache",
    "gem_blocks",
    "iterations",
    "inverse_temperature",
)
_RUNTIME_ONLY = ("provider", "engine_cache", "threads")


class Resize(str, Enum):
    shorter = "shorter"
    squash = "squash"
    exact = "exact"


def segment(
    context: typer.Context,
    images: Annotated[list[str], typer.Argument(help="Files, folders (with subfolders) or glob patterns.")],
    out: Annotated[Path, typer.Option(help="Output folder.")],
    prompt: Annotated[list[str] | None, typer.Option(help="A class; repeat for more.")] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="Text file with a class a line, synonyms separated by commas.")
    ] = None,
    background: Annotated[
        list[str] | None, typer.Option(help="What else the images may show; competes, and is labelled 0. Repeatable.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model name; `gem-fast models` lists them.")] = "gem-tiny",
    pretrained: Annotated[str | None, typer.Option(help="open_clip's tag of the weights.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Local .safetensors or .pt weights instead of a tag.")] = None,
    dtype: Annotated[str, dtype_option("Type of the vision transformer")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward.")] = 8,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the model's input in pixels (default: the model's, mostly 448).")
    ] = None,
    resize: Annotated[
        Resize | None,
        typer.Option(
            help="What --size is: the shorter side (default), both sides, or nothing (the image's own size). "
            "An exported model's default is the nearest of its sizes."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Confidence below which a pixel is background (default: the model's)."),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(help="photo, imagenet (80 templates), or your own with {} for the class; repeatable."),
    ] = None,
    overlays: Annotated[
        bool,
        typer.Option(
            "--overlays/--no-overlays", help="Write overlays, each of which takes several times as long as its labels."
        ),
    ] = True,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Also write heat maps as .npz.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what an earlier run into --out finished.")] = False,
    text_cache: Annotated[Path | None, typer.Option(help="Folder that keeps text embeddings between runs.")] = None,
    gem_blocks: Annotated[int | None, typer.Option(help="Last blocks with a GEM path (default: the model's).")] = None,
    iterations: Annotated[int | None, typer.Option(help="Self-self attention iterations.")] = None,
    inverse_temperature: Annotated[float | None, typer.Option(help="Fixed 1/τ instead of the adaptive one.")] = None,
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
    threads: Annotated[
        int | None, typer.Option(min=1, help="With --runtime: CPU threads (default: a core each).")
    ] = None,
) -> None:
    """Segment images by words: for each a label image with its legend, an overlay, and a line in summary.jsonl.

    Exit status: 0 if all images are done, 1 if some failed, 2 if nothing could be started, 130 if interrupted.
    """
    import gem_fast
    from gem_fast import segment_files
    from gem_fast.batch.sources import find_images
    from gem_fast.prompts import read_prompt_file

    foreign = _RUNTIME_ONLY if runtime is None else _ENGINE_ONLY
    if given := [name for name in foreign if was_given(context, name)]:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        fail(f"{named} can't go with --runtime" if runtime else f"{named} can only go with --runtime")
    if runtime is not None and not runtime.exists():
        exports = [each for each in images if Path(each, "manifest.json").is_file()]
        hint = f"; --runtime {exports[0]} would run the export there" if exports else ""
        fail(f"--runtime takes the folder of an exported model, and there is no folder {runtime}{hint}")
    failed = []
    done = 0
    try:
        classes: dict[str, Any] = {name: [name] for name in prompt or []}
        if prompts_file:
            classes.update(read_prompt_file(prompts_file))
        if not classes:
            fail("name at least one class with --prompt or --prompts-file")
        find_images(images)  # a mistyped path should not cost the loading of a model
        gem: Segmenter
        if runtime is not None:
            from gem_fast.runtime import GemRuntime

            gem = GemRuntime(runtime, provider=provider, cache=engine_cache, threads=threads, max_batch=batch_size)
        else:
            options = {"gem_blocks": gem_blocks, "iterations": iterations, "inverse_temperature": inverse_temperature}
            chosen: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
            gem = gem_fast.load(
                model, pretrained, weights=weights, device=device, dtype=dtype, text_cache=text_cache, **chosen
            )
        with progress_bar() as progress, short_warnings():
            bar = progress.add_task("segmenting", total=None)
            records = segment_files(
                gem,
                images,
                classes,
                out,
                overlays=overlays,
                heatmaps=heatmaps,
                resume=resume,
                background=background or (),
                batch_size=batch_size,
                size=size,
                resize=resize.value if resize else None,
                threshold=threshold,
                templates=templates or "photo",
                on_start=lambda total: progress.update(bar, total=total),
                on_record=lambda _: progress.advance(bar),
            )
        failed = [record for record in records if record.status == "failed"]
        done = len(records) - len(failed)
    except KeyboardInterrupt:
        told = f"interrupted; what was finished is in {out}, and --resume goes on from there"
        say(told, to=errors)
        raise typer.Exit(130) from None
    except (ValueError, OSError) as error:
        fail(str(error))
    say(f"{done} image{'s' * (done != 1)} segmented into {out}")
    for record in failed:
        say(f"failed: {record.error}", "red", to=errors)
    if failed:
        errors.print(f"{len(failed)} of {len(records)} images failed", style="red")
        raise typer.Exit(1)


def was_given(context: typer.Context, name: str) -> bool:
    """Whether the user gave an option, rather than its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
