"""The `gem-fast` command: a thin skin over the Python API."""

import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

app = typer.Typer(
    help="Open-vocabulary segmentation with GEM (CVPR 2024), fast.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)


class Dtype(str, Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Resize(str, Enum):
    shorter = "shorter"
    squash = "squash"
    exact = "exact"


class ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        seconds = task.finished_time or task.elapsed
        return Text(f"{task.completed / seconds:.2f} images/s" if seconds else "– images/s")


def fail(message: str) -> NoReturn:
    """Print an error of usage and leave with status 2."""
    errors.print(f"gem-fast: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


@app.command(no_args_is_help=True)
def segment(
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
    dtype: Annotated[Dtype, typer.Option(help="Type of the vision transformer.")] = Dtype.float32,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward.")] = 8,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of the model's input in pixels (default: the model's, mostly 448).")
    ] = None,
    resize: Annotated[
        Resize, typer.Option(help="What --size is: the shorter side, both sides, or nothing (the image's own size).")
    ] = Resize.shorter,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Confidence below which a pixel is background (default: the model's)."),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(help="photo, imagenet (80 templates), or your own with {} for the class; repeatable."),
    ] = None,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Also write heat maps as .npz.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what an earlier run into --out finished.")] = False,
    text_cache: Annotated[Path | None, typer.Option(help="Folder that keeps text embeddings between runs.")] = None,
    gem_blocks: Annotated[int | None, typer.Option(help="Last blocks with a GEM path (default: the model's).")] = None,
    iterations: Annotated[int | None, typer.Option(help="Self-self attention iterations.")] = None,
    inverse_temperature: Annotated[float | None, typer.Option(help="Fixed 1/τ instead of the adaptive one.")] = None,
) -> None:
    """Segment images by words: for each an overlay, a label image with its legend, and a line in summary.jsonl.

    Exit status: 0 if all images are done, 1 if some failed, 2 if nothing could be started, 130 if interrupted.
    """
    from . import load, segment_files
    from .files import find_images
    from .text import read_prompt_file

    options = {"gem_blocks": gem_blocks, "iterations": iterations, "inverse_temperature": inverse_temperature}
    failed = []
    done = 0
    try:
        classes: dict[str, Any] = {name: [name] for name in prompt or []}
        if prompts_file:
            classes.update(read_prompt_file(prompts_file))
        if not classes:
            fail("name at least one class with --prompt or --prompts-file")
        find_images(images)  # a mistyped path should not cost the loading of a model
        gem = load(
            model,
            pretrained,
            weights=weights,
            device=device,
            dtype=dtype.value,
            text_cache=text_cache,
            **{name: value for name, value in options.items() if value is not None},
        )
        with progress_bar() as progress, short_warnings():
            bar = progress.add_task("segmenting", total=None)
            records = segment_files(
                gem,
                images,
                classes,
                out,
                heatmaps=heatmaps,
                resume=resume,
                background=background or (),
                batch_size=batch_size,
                size=size,
                resize=resize.value,
                threshold=threshold,
                templates=templates or "photo",
                on_start=lambda total: progress.update(bar, total=total),
                on_record=lambda _: progress.advance(bar),
            )
        failed = [record for record in records if record.status == "failed"]
        done = len(records) - len(failed)
    except KeyboardInterrupt:
        told = f"interrupted; what was finished is in {out}, and --resume goes on from there"
        errors.print(told, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    except (ValueError, OSError) as error:
        fail(str(error))
    console.print(
        f"{done} image{'s' * (done != 1)} segmented into {out}", markup=False, highlight=False, soft_wrap=True
    )
    for record in failed:
        errors.print(f"failed: {record.error}", style="red", markup=False, highlight=False, soft_wrap=True)
    if failed:
        errors.print(f"{len(failed)} of {len(records)} images failed", style="red")
        raise typer.Exit(1)


@contextmanager
def short_warnings() -> Iterator[None]:
    """Warnings as a line for users, without the place in the code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        errors.print(f"gem-fast: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        ImagesPerSecond(),
        TimeRemainingColumn(),
        console=errors,
    )


@app.command()
def models() -> None:
    """List the models that can be loaded, with their pretrained tags."""
    from . import pretrained_tags, supported_models

    names = supported_models()
    for name in names:
        tags = ", ".join(pretrained_tags(name)) or ("(embedded)" if name == "gem-tiny" else "random")
        # A line each, whatever the width, so that grep finds the tags with the name.
        console.print(f"{name:{max(map(len, names))}}  {tags}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def info() -> None:
    """Show the machine, the attention backends and the versions."""
    import torch

    from .kernels.attention import backends, choose_backend, cpu

    table = Table(show_header=False, box=None)
    table.add_row("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    table.add_row("CPU", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for i in range(torch.cuda.device_count()):
        table.add_row(f"cuda:{i}", torch.cuda.get_device_name(i))
    table.add_row("MPS", "available" if torch.backends.mps.is_available() else "not available")
    table.add_row("backends", ", ".join(backends()))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        chosen = choose_backend(torch.empty(1, 1, 3, 1, 64, dtype=dtype))
        path = f" ({cpu.choose_path(dtype)})" if chosen == "cpu" else ""
        table.add_row("", f"{str(dtype).removeprefix('torch.')} on the CPU: {chosen}{path}")
    if cpu.why_missing():
        table.add_row("", f"cpu can't serve: {cpu.why_missing()}")
    for package in ("gem_fast", "torch", "triton", "open_clip_torch", "numpy", "pillow"):
        try:
            table.add_row(package, version(package))
        except PackageNotFoundError:
            table.add_row(package, "not installed")
    console.print(table)


def main() -> None:
    """Entry of the `gem-fast` command."""
    app(prog_name="gem-fast")


if __name__ == "__main__":
    main()
