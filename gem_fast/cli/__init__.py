"""The `gem-fast` command: a thin skin over the Python API, a file for each subcommand."""

import typer

from .bench import bench
from .export import export
from .info import info
from .models import models
from .segment import segment
from .tune import tune

app = typer.Typer(
    help="Open-vocabulary segmentation with GEM (CVPR 2024), fast.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(no_args_is_help=True)(segment)
app.command(no_args_is_help=True)(export)
app.command()(models)
app.command()(info)
app.add_typer(bench, name="bench")
app.command()(tune)


def main() -> None:
    """Entry of the `gem-fast` command."""
    app(prog_name="gem-fast")
