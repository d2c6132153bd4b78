"""`gem-fast tune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..terminal import console, errors, fail, say
from .options import dtype_option

if TYPE_CHECKING:
    from gem_fast.kernels.attention.triton.tile_search import Problem, Trial


def tune(
    model: Annotated[str, typer.Option(help="Model whose heads are tuned for.")] = "ViT-B-16",
    size: Annotated[list[int] | None, typer.Option(min=1, help="Side of the input; repeatable (default: 448).")] = None,
    batch_size: Annotated[list[int] | None, typer.Option(min=1, help="Repeatable (default: 1 and 8).")] = None,
    dtype: Annotated[list[str], dtype_option("Type of the products, repeatable", also=("tf32",))] = ["bfloat16"],  # noqa: B006
    heads: Annotated[
        int | None, typer.Option(min=1, help="With --tokens and --head-width: instead of a model.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of an image, class token included.")] = None,
    head_width: Annotated[int | None, typer.Option(min=1, max=128, help="Channels of a head.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Table file (default: the user's own, which is picked up by itself).")
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, cuda:1.")] = "cuda",
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every candidate.")] = False,
) -> None:
    """Choose the tiles of Triton's attention kernels by measuring them on this GPU; all cores compile, for minutes.

    Every candidate is compared with float64 first: one that is wrong or fails is reported and never chosen. The engine
    takes its table from the file that GEM_FAST_TILES names (`off`: the built-in table), else from the user's own.
    """
    explicit = (heads, tokens, head_width)
    if None in explicit and set(explicit) != {None}:
        fail("--heads, --tokens and --head-width go together")
    from gem_fast.kernels.attention.triton import tile_search
    from gem_fast.tile_tuning import problems_of, tune_tiles

    batches = batch_size or [1, 8]
    told: set[Problem] = set()

    def report(problem: "Problem", trial: "Trial") -> None:
        if problem not in told:
            told.add(problem)
            say(f"{problem.kind}: {problem.B} × {problem.H} heads, {problem.N} tokens of {problem.D} channels")
        bad = trial.verdict in ("wrong", "failed")
        if bad or verbose:
            shown = f"{trial.ms:.4f} ms" if trial.ms is not None else trial.reason
            say(f"  {trial.operation} {_tile(trial.tile)}: {trial.verdict}, {shown}", to=errors if bad else console)

    try:
        if heads and tokens and head_width:
            problems = [
                tile_search.Problem(batch, tokens, heads, head_width, kind) for kind in dtype for batch in batches
            ]
        else:
            problems = problems_of(model, size or [448], batches, dtype)
        path, table = tune_tiles(problems, device=device, out=out, report=report)
    except (ValueError, RuntimeError, OSError) as error:
        fail(str(error))
    wanted = {problem.shape for problem in problems}
    for entry in table.entries:
        if entry.shape in wanted:
            gain = f"{entry.ms:.4f} ms, built-in {entry.built_in_ms:.4f} ms"
            say(
                f"{entry.shape.kind} {entry.shape.heads}×{entry.shape.N} {entry.operation}: {_tile(entry.tile)}, {gain}"
            )
    say(f"written to {path}")


def _tile(tile: object) -> str:
    return str(tile) if tile else "none"
