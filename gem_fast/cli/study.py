"""`gem-fast study`: the paper's studies, each with a picture."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..terminal import errors, fail, say, short_warnings
from .options import Pretrained

if TYPE_CHECKING:
    from gem_fast.evaluation.studies import Study

study = typer.Typer(
    help="The paper's studies of self-self attention: figures and a picture each.", no_args_is_help=True
)
_OUT = typer.Option(help="Folder for the picture.")
_SEED = typer.Option(help="Of the random vectors.")
_MODEL = typer.Option(help="As gem-fast models has it.")


@contextmanager
def _failing() -> Iterator[None]:
    try:
        with short_warnings():
            yield
    except (ValueError, OSError) as error:
        fail(str(error))


def _tell(made: "Callable[[], Study]", out: Path, picture: str) -> None:
    with _failing():
        from gem_fast.evaluation.plots import make_room

        make_room(out / picture)
        found = made()
        for failure in found.failures:
            say(f"failed: {failure}", "red", to=errors)
        for line in found.lines:
            say(line)
        say(f"drawn in {out / picture}")
    if found.failures:
        raise typer.Exit(1)


@study.command()
def clustering(out: Annotated[Path, _OUT] = Path("study"), seed: Annotated[int, _SEED] = 0) -> None:
    """Figure 3: clusters of 20 random vectors, by iterations and temperature."""
    from gem_fast.evaluation import studies

    _tell(lambda: studies.clustering(out, seed), out, "clustering.png")


@study.command()
def kmeans(out: Annotated[Path, _OUT] = Path("study"), seed: Annotated[int, _SEED] = 0) -> None:
    """Self-self attention beside k-means: how far they agree."""
    from gem_fast.evaluation import studies

    _tell(lambda: studies.kmeans(out, seed), out, "kmeans.png")


@study.command()
def lipschitz(
    model: Annotated[str, _MODEL] = "gem-tiny",
    pretrained: Pretrained = None,
    out: Annotated[Path, _OUT] = Path("study"),
) -> None:
    """Section 3.2: Lipschitz constants of a model's projections."""
    from gem_fast.evaluation import studies

    _tell(lambda: studies.lipschitz(_loaded(model, pretrained), out), out, "lipschitz.png")


@study.command()
def localization(
    model: Annotated[str, _MODEL] = "gem-tiny",
    pretrained: Pretrained = None,
    data: Annotated[str, typer.Option(help="As for gem-fast evaluate, points left out.")] = "scenes",
    root: Annotated[Path | None, typer.Option(help="What holds VOCdevkit, ...")] = None,
    images: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    size: Annotated[int | None, typer.Option(min=1, help="Shorter side of the input.")] = None,
    out: Annotated[Path, _OUT] = Path("study"),
) -> None:
    """Figure 5: similarity of patches and contrasts after each block, by method.

    Exit status: 0, 1 if some images could not be used, 2 if it could not start or go on.
    """
    from gem_fast.evaluation import open_data, studies

    _tell(
        lambda: studies.localization(_loaded(model, pretrained), open_data(data, root), out, images, size),
        out,
        "localization.png",
    )


def _loaded(model: str, pretrained: str | None) -> Any:
    import gem_fast

    return gem_fast.load(model, pretrained)
