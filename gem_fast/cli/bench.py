"""`gem-fast bench`, `gem-fast bench compare` and `gem-fast bench report`."""

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..terminal import console, errors, fail, say
from .dtype_option import dtype_option

if TYPE_CHECKING:
    from gem_fast.bench.records import Row

bench = typer.Typer(short_help="Measure latency and throughput here, and compare runs.", invoke_without_command=True)


class Mode(str, Enum):
    latency = "latency"
    throughput = "throughput"


class Rival(str, Enum):
    authors = "authors"
    eager = "eager"
    compiled = "compiled"
    onnx_ort = "onnx-ort"
    onnx_onnx = "onnx-onnx"
    onnx_portable = "onnx-portable"


@bench.callback()
def measure(
    context: typer.Context,
    model: Annotated[list[str], typer.Option(help="Model; repeatable, as are the next four.")] = ["ViT-B-16"],  # noqa: B006
    size: Annotated[list[int], typer.Option(min=1, help="Side of the input in pixels.")] = [448],  # noqa: B006
    batch_size: Annotated[list[int], typer.Option(min=1, help="Images in one forward.")] = [1],  # noqa: B006
    dtype: Annotated[list[str], dtype_option("Type of the vision transformer")] = ["float32"],  # noqa: B006
    backend: Annotated[list[str], typer.Option(help="Attention backend, or auto.")] = ["auto"],  # noqa: B006
    against: Annotated[
        list[Rival],
        typer.Option(
            help="Besides: the authors' package, eager code, the same under torch.compile, our ONNX graph on ONNX "
            "Runtime with one kind of attention of `gem-fast export`. Repeatable."
        ),
    ] = [],  # noqa: B006
    mode: Annotated[Mode, typer.Option(help="Forwards one by one, or several in a row.")] = Mode.latency,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each provider.")] = 9,
    budget: Annotated[float, typer.Option(help="Seconds after which a provider has no further turns in a case.")] = 60,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: torch's choice).")] = None,
    waterfall: Annotated[
        bool, typer.Option("--waterfall", help="Also measure each technique added in turn, from eager code on.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write pytest-benchmark's JSON.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a report with plots, one file.")] = None,
) -> None:
    """Time forwards of models × sizes × batches × types × backends, in turns, after checking that outputs agree.

    open_clip's models get random weights: nothing is downloaded. Exit status: 0, 1 if a provider has no figure, 2 if
    nothing could be measured.
    """
    if context.invoked_subcommand:
        return
    from gem_fast.bench import sweep
    from gem_fast.bench.machine import machine, machine_line
    from gem_fast.bench.measure import Plan
    from gem_fast.bench.processes import ProviderError
    from gem_fast.bench.records import document, write_document
    from gem_fast.bench.tables import print_rows

    try:
        asked = sweep.Sweep(
            models=model,
            sizes=size,
            batches=batch_size,
            dtypes=dtype,
            backends=backend,
            against=[each.value for each in against],
            mode=mode.value,
            device=device,
            threads=threads,
            plan=Plan(rounds, budget, calls=8 if mode == Mode.throughput else 1),
        )
        facts = machine(threads)
        say(machine_line(facts))
        steps = sweep.waterfall("cpu" if device == "cpu" else "triton") if waterfall else ()
        outcome = sweep.run(asked, steps=steps, tell=_progress)
    except (ValueError, OSError, ProviderError) as error:
        fail(str(error))
    print_rows(_wide(), outcome.rows)
    command = shlex.join(["gem-fast", *sys.argv[1:]])
    content = document(outcome.rows, facts, command=command, ceilings=outcome.ceilings)
    if json_file:
        write_document(json_file, content)
    if html_file:
        _write_html(content, html_file)
    if not all(row.seconds for row in outcome.rows):
        raise typer.Exit(1)


@bench.command(no_args_is_help=True)
def compare(
    before: Annotated[Path, typer.Argument(help="JSON of the first run, by gem-fast bench or pytest-benchmark.")],
    after: Annotated[Path, typer.Argument(help="JSON of the second run.")],
    tolerance: Annotated[float, typer.Option(min=0, help="Share that counts as no change.")] = 0.05,
    relative_to: Annotated[
        str | None,
        typer.Option(help="Provider whose time divides the others', such as 'sdpa float32'; 'first' of each case."),
    ] = None,
) -> None:
    """Show how much slower or faster each benchmark became, with its noise.

    Exit status: 0, 1 if one became slower beyond its noise and the tolerance, 2 if the files can't be compared.
    """
    from gem_fast.bench.compare import compare as compare_rows
    from gem_fast.bench.records import read_document, read_rows

    try:
        runs = [read_rows(read_document(path)) for path in (before, after)]
        changes = compare_rows(*runs, tolerance=tolerance, relative_to=relative_to)
    except ValueError as error:
        fail(str(error))
    table = Table("benchmark", "after / before", "20-80%", "", box=None)
    colours = {"slower": "red", "faster": "green", "same": "default"}
    for change in changes:
        span = f"{change.low:.3f}-{change.high:.3f}"
        table.add_row(escape(change.name), f"{change.ratio:.3f}", span, change.verdict, style=colours[change.verdict])
    _wide().print(table, no_wrap=True)
    if any(change.verdict == "slower" for change in changes):
        raise typer.Exit(1)


@bench.command(no_args_is_help=True)
def report(
    runs: Annotated[list[Path], typer.Argument(help="JSON of a run, or of several on one machine, as one report.")],
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a report with plots, one file.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables as Markdown.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the runs as one file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder to write the plots into as PNG.")] = None,
) -> None:
    """Tell what was measured, from its JSON, as a table here and as reports.

    Rounds of a benchmark that several runs hold come together. Exit status: 0, 2 if a file can't be read or written, or
    if runs are not of one machine.
    """
    from gem_fast.bench import plots as drawn
    from gem_fast.bench.markdown import markdown
    from gem_fast.bench.merging import merged
    from gem_fast.bench.records import read_document, read_rows, write_document
    from gem_fast.bench.tables import SHORT, print_rows
    from gem_fast.writing import write_whole

    try:
        content = merged([read_document(path) for path in runs])
        print_rows(_wide(), read_rows(content), SHORT)
        if plots:
            figures = dict(drawn.plots(read_rows(content), content["gem_fast"]["ceilings"]))
            if not figures:
                raise ValueError(
                    "nothing to plot: plots need several sizes or batches of `gem-fast bench`, or ceilings"
                )
            for name, figure in figures.items():
                write_whole(plots / f"{name}.png", drawn.to_png(figure))
        if json_file:
            write_document(json_file, content)
        if markdown_file:
            write_whole(markdown_file, markdown(content).encode())
        if html_file:
            _write_html(content, html_file)
    except (ValueError, OSError) as error:
        fail(str(error))


def _write_html(content: dict, path: Path) -> None:
    from gem_fast.bench.html import page
    from gem_fast.writing import write_whole

    write_whole(path, page(content).encode())
    say(f"report in {path}")


def _wide() -> Console:
    """For tables: a figure cut to the terminal's width would be none."""
    return Console(width=max(console.width, 170))


def _progress(row: "Row") -> None:
    told = f"{row.at(0.5):.3g} s" if row.seconds else f"no figure: {row.extra['refused']}"
    say(f"{row.name}: {told}", to=errors)
