"""`gem-fast evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..terminal import console, ended_by_signals, errors, fail, say, short_warnings
from .dtype_option import dtype_option
from .model_options import PoolingOption, Rotated, Tokenizer, Weights, chosen
from .progress import Style, shown

if TYPE_CHECKING:
    from gem_fast.evaluation import Dataset, Evaluation, Protocol
    from gem_fast.evaluation.open_images import PointSet

_MOST_SHOWN = 5  # failures of a row
_WIDTH = 132  # of the table where there is no terminal
_PREFIXES = ("hf-hub:", "local-dir:")


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
    size: Annotated[int | None, typer.Option(min=1, help="Shorter side of the input.")] = None,
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
        bool | None, typer.Option("--background-words/--no-background-words", help="Words for what is background.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="iterations=0,1,2, projections=q,k,v,qkv, normalize=true,false, or temperature=0.5,1,2, "
            "multiples of the adaptive one; repeatable for all combinations."
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of the sweep's mIoU.")] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="Other words: a class a line in the order of labels, synonyms after commas.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the rows, with IoU by class.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an evaluation into --json.")] = False,
    dtype: Annotated[str, dtype_option("Type of the vision transformer")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    pooling: PoolingOption = None,
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
    loading = {"weights": weights, "dtype": dtype, "device": device}
    loading |= chosen(tokenizer=tokenizer, pooling=pooling, rotated=rotated)
    changed = {
        "size": size,
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
            sets = [_open(each, root, prompts_file) for each in data or fail("name at least one set with --data")]
            steps = [_steps(each, protocol, changed) for each in sets]
            failed = _evaluate(
                sets, steps, method or [], model or ["gem-tiny"], loading, json_file, resume,
                batch_size, workers, progress, sweep or [], plot,
            )  # fmt: skip
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
    from gem_fast.evaluation.open_images import open_points
    from gem_fast.prompts import read_prompt_file

    if name == POINTS:
        return open_points(root)
    found = open_data(name, root)
    return found if prompts_file is None else found.with_classes(read_prompt_file(prompts_file))


def _steps(dataset: "Dataset | PointSet", protocol: str | None, changed: dict[str, Any]) -> "Protocol":
    from gem_fast.evaluation.protocols import PROTOCOLS, USUAL

    name = protocol or USUAL
    if name not in PROTOCOLS:
        raise ValueError(f"no protocol is called {name!r}; the protocols are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name].of(dataset.name, **changed)


def _evaluate(
    sets: list["Dataset | PointSet"],
    steps: list["Protocol"],
    methods: list[str],
    models: list[str],
    loading: dict[str, Any],
    json_file: Path | None,
    resume: bool,
    batch_size: int,
    workers: int | None,
    style: Style,
    sweep: list[str],
    plot: Path | None,
) -> int:
    """Evaluate each model, method and set; how many images could not be used."""
    import gem_fast
    from gem_fast.batch.progress import Progress
    from gem_fast.evaluation.open_images import PointSet, evaluate_points
    from gem_fast.evaluation.paper import paper_figure
    from gem_fast.evaluation.run import evaluate_variants

    rows: list[dict[str, Any]] = []
    figures: list[float | None] = []
    failed = 0
    journal = None if json_file is None else json_file.with_name(f"{json_file.name}.partial")
    if journal is not None and not resume:
        journal.unlink(missing_ok=True)
    everything = list(gem_fast.methods())
    usual = everything if not sweep and all(each.name == "scenes" for each in sets) else ["gem"]
    for name in models:
        model, tag = _split(name)
        for method in everything if "all" in methods else methods or usual:
            engine = gem_fast.load(model, tag, method=method, **loading)
            variants = [""]
            if sweep:
                if any(isinstance(each, PointSet) for each in sets):
                    raise ValueError("a sweep is of label maps; measure points with one setting at a time")
                from gem_fast.evaluation.sweep import swept

                engine = swept(engine, sweep)
                variants = [each.name for each in engine.variants]
            for dataset, own in zip(sets, steps, strict=True):
                progress = Progress()
                settings: dict[str, Any] = {"method": method, "batch_size": batch_size, "progress": progress}
                beside: dict[str, Any] = {"workers": workers, "journal": journal, "variants": variants}
                say(f"{engine.name}, {method}, {dataset.name}: {len(dataset.images):,} images", to=errors)
                with shown(progress, style):
                    if isinstance(dataset, PointSet):
                        done = [evaluate_points(engine, dataset, own, **settings)]
                    else:
                        done = evaluate_variants(engine, dataset, own, **settings, **beside)
                failed += _tell_failures(done[0])
                rows += [each.row for each in done]
                figures += [None if sweep else paper_figure(dataset.name, model, tag, method)] * len(done)
                _write(json_file, rows)
    if journal is not None:
        journal.unlink(missing_ok=True)
    if plot is not None:
        from gem_fast.evaluation.plots import draw_sweep

        draw_sweep(rows, plot)
    Console(width=max(console.width, _WIDTH)).print(_table(rows, figures))
    return failed


def _split(name: str) -> tuple[str, str | None]:
    """`NAME:TAG` to both."""
    if name.startswith(_PREFIXES) or ":" not in name or Path(name).exists():
        return name, None
    model, tag = name.rsplit(":", 1)
    return model, tag


def _write(json_file: Path | None, rows: list[dict[str, Any]]) -> None:
    from gem_fast.writing import write_whole

    if json_file is not None:
        write_whole(json_file, (json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode())


def _tell_failures(done: "Evaluation") -> int:
    for failure in done.failures[:_MOST_SHOWN]:
        say(f"failed: {failure}", "red", to=errors)
    if len(done.failures) > _MOST_SHOWN:
        say(f"failed: {len(done.failures) - _MOST_SHOWN:,} more", "red", to=errors)
    return len(done.failures)


def _table(rows: list[dict[str, Any]], figures: list[float | None]) -> Any:
    from rich.table import Table

    headings = ("data", "model", "method", "protocol", "mIoU", "paper", "pixels", "classes", "fwIoU", "images/s")
    table = Table()
    for place, heading in enumerate(headings):
        table.add_column(heading, no_wrap=True, justify="left" if place < 4 else "right")
    for row, figure in zip(rows, figures, strict=True):
        shares = [row[name] for name in ("pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")]
        table.add_row(
            row["data"],
            row["model"],
            ", ".join(filter(None, (row["method"], row["settings"].get("sweep")))),
            row["protocol"],
            _percent(row["miou"]),
            "" if figure is None else f"{figure:.1f}",
            *map(_percent, shares),
            "" if row["images_per_second"] is None else f"{row['images_per_second']:.1f}",
        )
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
