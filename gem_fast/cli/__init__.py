"""The `gem-fast` command: a thin skin over the Python API, a file for each subcommand."""

from importlib.metadata import version as installed
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..terminal import say
from .bench import bench
from .demo import demo
from .evaluate import evaluate
from .export import export
from .info import info
from .models import models
from .segment import segment
from .study import study
from .tune import tune


class Commands(TyperGroup):
    """All commands, none of which takes an empty argument."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for before, each in zip(("", *args), args, strict=False):
            option, equals, value = each.partition("=")
            if not each or (option.startswith("--") and equals and not value):  # as a path it would be this folder
                where = f", {each or f'after {before}'}" if each or before.startswith("-") else ""
                raise typer.BadParameter(f"an empty argument{where}: a variable of the shell that is not set?", ctx)
        found: list[str] = super().parse_args(ctx, args)
        return found


app = typer.Typer(
    cls=Commands,
    help="Open-vocabulary segmentation with GEM (CVPR 2024), fast.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command(no_args_is_help=True)(segment)
app.command(no_args_is_help=True)(evaluate)
app.command(no_args_is_help=True)(export)
app.command()(models)
app.command()(info)
app.add_typer(bench, name="bench")
app.add_typer(study, name="study")
app.command()(tune)


def tell_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        say(f"gem-fast {installed('gem_fast')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


def main() -> None:
    """Entry of the `gem-fast` command."""
    app(prog_name="gem-fast")
