"""`gem-fast evaluate`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..dtypes import INT8
from ..terminal import console, ended_by_signals, errors, fail, say, short_warnings
from ..text_file import as_utf8
from .options import PoolingName, Resize, Rotated, TextDtype, Tokenizer, Weights, chosen, dtype_option
from .progress import Style, shown

if TYPE_CHECKING:
    from gem_fast.evaluation import Dataset, Evaluation, Protocol
    from gem_fast.evaluation.open_images import PointSet
    from gem_fast.evaluation.plan import Plan

_MOST_SHOWN = 5  # failures of a row
_WIDTH = 132  # of the table where there is no terminal


def evaluate(
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="voc20, voc21, context59, context60, ade20k, coco-stuff, coco-object, cityscapes, openimages-points, "
            "scenes (part of this package), or a folder with images/, labels/ and classes.txt. Repeatable."
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="What holds VOCdevkit, ADEChallengeData2016, ...")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Of docs/methods.md, or all; repeatable (default: gem; all on scenes).")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="NAME or NAME:TAG, as gem-fast models has them; repeatable.")
    ] = None,
    weights: Weights = None,
    tokenizer: Tokenizer = None,
    protocol: Annotated[
        str | None, typer.Option(help="gem, sclip, or own, the model's defaults (default: gem).")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Tell what the protocol does, set by set.")] = False,
    size: Annotated[int | None, typer.Option(min=1, help="Side of the input in pixels.")] = None,
    resize: Annotated[
        Resize | None, typer.Option(help="What --size is: the shorter side, both, or nothing (the image's own size).")
    ] = None,
    window: Annotated[int | None, typer.Option(min=0, help="Side of sliding windows; 0 for none.")] = None,
    stride: Annotated[int | None, typer.Option(min=1, help="Pixels from a window to the next.")] = None,
    templates: Annotated[str | None, typer.Option(help="photo, imagenet, or your own with {} for the class.")] = None,
    logit_scale: Annotated[float | None, typer.Option(help="Multiplier of the cosine before the softmax.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probability below which a pixel is background.")
    ] = None,
    area_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Classes with no more of the foreground than this lose it.")
    ] = None,
    synonyms: Annotated[
        bool | None, typer.Option("--synonyms/--no-synonyms", help="All words of a class, or its first alone.")
    ] = None,
    background_words: Annotated[
        bool | None,
        typer.Option("--background-words/--no-background-words", help="Words of the background compete, too."),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="iterations=0,1,2, projections=q,k,v,qkv, normalize=true,false, or temperature=0.5,1,2, "
            "multiples of the model's own; repeatable for all combinations."
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of the sweep's mIoU.")] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="Other words: a class a line in the order of labels, synonyms after commas.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the rows, with IoU by class.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an evaluation into --json.")] = False,
    dtype: Annotated[str, dtype_option("Type of the vision transformer", also=(INT8,))] = "float32",
    text_dtype: TextDtype = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    pooling: PoolingName = None,
    rotated: Rotated = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images or windows in one forward.")] = 8,
    workers: Annotated[int | None, typer.Option(min=1, help="How many read and decode beside the engine.")] = None,
    progress: Annotated[Style, typer.Option(help="bar, plain, json or none; auto.")] = Style.auto,
) -> None:
    """Measure methods on labelled data: mIoU and more, beside the paper's figure.

    Exit status: 0, 1 if some images could not be used, 2 if it could not start or go on, 130 if interrupted.
    """
    if explain:
        _explain(protocol or "gem")
        return
    if plot is not None and not sweep:
        fail("--plot draws a sweep: name one with --sweep")
    if resume and json_file is None:
        fail("--resume goes on with what --json FILE holds: name it")
    loading: dict[str, Any] = {"weights": weights, "dtype": dtype, "text_dtype": text_dtype, "device": device}
    loading |= chosen(tokenizer=tokenizer, pooling=pooling, rotated=rotated)
    changed = {
        "size": size,
        "resize": resize and resize.value,
        "window": window,
        "stride": stride,
        "templates": templates,
        "logit_scale": logit_scale,
        "threshold": threshold,
        "area_threshold": area_threshold,
        "synonyms": synonyms,
        "background_words": background_words,
    }
    try:
        with ended_by_signals(), short_warnings():
            from gem_fast.evaluation.plan import Plan

            sets = [_open(each, root, prompts_file) for each in data or fail("name at least one set with --data")]
            plan = Plan(
                tuple((each, _steps(each, protocol, changed)) for each in sets),
                models=tuple(model or ["gem-tiny"]),
                methods=tuple(method or ()),
                sweep=tuple(sweep or ()),
                loading=loading,
            )
            running = {"batch_size": batch_size, "workers": workers}
            failed = _evaluate(plan, running, progress, _Output(json_file, plot, resume))
    except KeyboardInterrupt:
        hint = f"; --resume goes on with {json_file}" if json_file else ""
        say(f"interrupted{hint}", to=errors)
        raise typer.Exit(130) from None
    except (ValueError, OSError) as error:
        fail(str(error))
    if failed:
        raise typer.Exit(1)


def _explain(name: str) -> None:
    from gem_fast.evaluation.protocols import PROTOCOLS
    from gem_fast.evaluation.protocols import explain as lines

    if name not in PROTOCOLS:
        fail(f"no protocol is called {name!r}; the protocols are {', '.join(PROTOCOLS)}")
    for line in lines(name):
        say(line)


def _open(name: str, root: Path | None, prompts_file: Path | None) -> "Dataset | PointSet":
    from gem_fast.evaluation import open_data
    from gem_fast.evaluation.datasets import POINTS
    from gem_fast.evaluation.labelled import read_classes
    from gem_fast.evaluation.open_images import open_points

    if name == POINTS:
        if prompts_file is not None:
            raise ValueError(f"--prompts-file names the classes of label maps, and {POINTS} has words of its own")
        return open_points(root)
    found = open_data(name, root)
    if prompts_file is None:
        return found
    return found.with_classes({each.name: each.synonyms for each in read_classes(prompts_file)})


def _steps(dataset: "Dataset | PointSet", protocol: str | None, changed: dict[str, Any]) -> "Protocol":
    from gem_fast.evaluation.protocols import PROTOCOLS, USUAL

    name = protocol or USUAL
    if name not in PROTOCOLS:
        raise ValueError(f"no protocol is called {name!r}; the protocols are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name].of(dataset.kind, **changed)


def _evaluate(plan: "Plan", running: dict[str, Any], style: Style, output: "_Output") -> int:
    """Evaluate each case and show the table; how many images could not be used."""
    from gem_fast.batch.progress import Progress

    rows: list[dict[str, Any]] = []
    figures: list[float | None] = []
    failed = 0
    output.begin()
    try:
        for case in plan.cases():
            progress = Progress()
            say(f"{case.model.name}, {case.method}, {case.data.name}: {len(case.data.images):,} images", to=errors)
            with shown(progress, style):
                done = case.evaluate(progress=progress, journal=output.journal, **running)
            failed += _tell_failures(done[0])
            rows += [each.row for each in done]
            figures += [case.paper] * len(done)
            output.write(rows)
    finally:  # what is finished is told, whatever ended the rest
        if rows:
            Console(width=max(console.width, _WIDTH)).print(_table(rows, figures))
    output.end(rows, failed)
    return failed


@dataclass(frozen=True)
class _Output:
    """The files of an evaluation: one for its rows, with its journal beside it, and a picture of a sweep."""

    rows: Path | None
    plot: Path | None
    resume: bool

    @property
    def journal(self) -> Path | None:
        return None if self.rows is None else self.rows.with_name(f"{self.rows.name}.partial")

    def begin(self) -> None:
        """Make sure that they can be written, before anything is measured."""
        if self.plot is not None:
            from gem_fast.evaluation.plots import make_room

            make_room(self.plot)
        if self.rows is not None and self.journal is not None:
            from gem_fast.writing import make_room_for

            make_room_for(self.rows)
            if not self.resume:
                self.journal.unlink(missing_ok=True)

    def write(self, rows: list[dict[str, Any]]) -> None:
        from gem_fast.writing import write_whole

        if self.rows is not None:
            content = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
            write_whole(self.rows, content.encode(errors="backslashreplace"))

    def end(self, rows: list[dict[str, Any]], failed: int) -> None:
        """With images that failed the journal stays, so that only these are computed once they are mended."""
        if self.journal is not None and failed:
            say(f"--resume goes on with {self.rows} where images failed, once these are mended", to=errors)
        elif self.journal is not None:
            self.journal.unlink(missing_ok=True)
        if self.plot is not None:
            from gem_fast.evaluation.plots import draw_sweep

            draw_sweep(rows, self.plot)


def _tell_failures(done: "Evaluation") -> int:
    for failure in done.failures[:_MOST_SHOWN]:
        say(f"failed: {failure}", "red", to=errors)
    if len(done.failures) > _MOST_SHOWN:
        say(f"failed: {len(done.failures) - _MOST_SHOWN:,} more", "red", to=errors)
    return len(done.failures)


def _table(rows: list[dict[str, Any]], figures: list[float | None]) -> Any:
    from rich.table import Table
    from rich.text import Text

    headings = ("data", "model", "method", "protocol", "mIoU", "paper", "pixels", "classes", "fwIoU", "images/s")
    table = Table()
    for place, heading in enumerate(headings):
        table.add_column(heading, no_wrap=True, justify="left" if place < 4 else "right")
    for row, figure in zip(rows, figures, strict=True):
        shares = [row[name] for name in ("pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")]
        cells = (
            row["data"],
            row["model"],
            ", ".join(filter(None, (row["method"], row["settings"].get("sweep")))),
            row["protocol"],
            _percent(row["miou"]),
            "" if figure is None else f"{figure:.1f}",
            *map(_percent, shares),
            "" if row["images_per_second"] is None else f"{row['images_per_second']:.1f}",
        )
        table.add_row(*(Text(as_utf8(each)) for each in cells))  # no markup
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
