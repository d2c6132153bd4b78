"""`gem-fast bench`, `gem-fast bench compare` and `gem-fast bench report`."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..dtypes import INT8
from ..terminal import console, errors, fail
from .options import dtype_option

bench = typer.Typer(short_help="Measure latency and throughput here, and compare runs.", invoke_without_command=True)


class Mode(str, Enum):
    latency = "latency"
    throughput = "throughput"


class Rival(str, Enum):
    authors = "authors"
    eager = "eager"
    compiled = "compiled"
    graph = "graph"
    onnx_ort = "onnx-ort"
    onnx_onnx = "onnx-onnx"
    onnx_portable = "onnx-portable"
    onnx_int8 = "onnx-int8"
    openvino = "openvino"


@bench.callback()
def measure(
    context: typer.Context,
    model: Annotated[list[str], typer.Option(help="Model; repeatable, as are the next four.")] = ["ViT-B-16"],  # noqa: B006
    size: Annotated[list[int], typer.Option(min=1, help="Side of the input in pixels.")] = [448],  # noqa: B006
    batch_size: Annotated[list[int], typer.Option(min=1, help="Images in one forward.")] = [1],  # noqa: B006
    dtype: Annotated[list[str], dtype_option("Type of the vision transformer", also=(INT8,))] = ["float32"],  # noqa: B006
    backend: Annotated[list[str], typer.Option(help="Attention backend, or auto.")] = ["auto"],  # noqa: B006
    method: Annotated[list[str], typer.Option(help="gem, clip, sclip, ...; repeatable.")] = ["gem"],  # noqa: B006
    against: Annotated[
        list[Rival],
        typer.Option(
            help="Besides: the authors' package, eager code, the same under torch.compile, the engine by CUDA graphs, "
            "our ONNX graph on ONNX Runtime with one kind of attention of `gem-fast export`, or with linear layers in "
            "int8, or on OpenVINO. Repeatable."
        ),
    ] = [],  # noqa: B006
    mode: Annotated[Mode, typer.Option(help="Forwards one by one, or several in a row.")] = Mode.latency,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each provider.")] = 9,
    budget: Annotated[
        float, typer.Option(min=1, help="Seconds after which a provider has no further turns in a case.")
    ] = 60,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: torch's choice).")] = None,
    waterfall: Annotated[
        bool, typer.Option("--waterfall", help="Also measure each technique added in turn, from eager code on.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write pytest-benchmark's JSON.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables as Markdown.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder to write plots into as PNG.")] = None,
) -> None:
    """Time forwards of models × sizes × batches × types × backends, in turns, after checking that outputs agree.

    open_clip's models get random weights: nothing is downloaded. Exit status: 0, 1 if a provider has no figure, 2 if
    nothing could be measured or a file not be written.
    """
    if context.invoked_subcommand:
        return
    if plots is not None and len(set(size)) < 2 and not waterfall:
        fail("--plots draws several sizes, or a waterfall: name more with --size, or take --waterfall")
    from gem_fast.bench.measure import Plan
    from gem_fast.bench.processes import ProviderError
    from gem_fast.bench.runs import Files, measure_run
    from gem_fast.bench.sweep import Sweep
    from gem_fast.loading import usable_device

    try:
        usable_device(device)
        files = Files(json_file, markdown_file, plots)
        asked = Sweep(
            models=model,
            sizes=size,
            batches=batch_size,
            dtypes=dtype,
            backends=backend,
            methods=method,
            against=[each.value for each in against],
            mode=mode.value,
            device=device,
            threads=threads,
            plan=Plan(rounds, budget, calls=8 if mode == Mode.throughput else 1),
        )
        complete = measure_run(asked, files, console, errors, waterfall)
    except (ValueError, OSError, ProviderError) as error:
        fail(str(error))
    raise typer.Exit(0 if complete else 1)


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
    from gem_fast.bench.runs import compare_runs

    try:
        changes = compare_runs(before, after, console, tolerance=tolerance, relative_to=relative_to)
    except ValueError as error:
        fail(str(error))
    raise typer.Exit(1 if any(change.verdict == "slower" for change in changes) else 0)


@bench.command(no_args_is_help=True)
def report(
    runs: Annotated[list[Path], typer.Argument(help="JSON of a run, or of several on one machine, as one report.")],
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the tables as Markdown.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the runs as one file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder to write the plots into as PNG.")] = None,
) -> None:
    """Tell what was measured, from its JSON, as a table here and as reports.

    Rounds of a benchmark that several runs hold come together. Exit status: 0, 2 if a file can't be read or written, or
    if runs are not of one machine.
    """
    from gem_fast.bench.runs import Files, report_runs

    try:
        report_runs(runs, Files(json_file, markdown_file, plots), console)
    except (ValueError, OSError) as error:
        fail(str(error))
