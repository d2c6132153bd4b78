"""`gem-fast demo`."""

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import fail, say


def demo(out: Annotated[Path, typer.Argument(help="Output folder.")] = Path("demo_output")) -> None:
    """Segment the sample images of this package with its embedded model.

    OUT gets the images, and of each an overlay, a label image with its legend, and a heat map for each word.
    """
    import gem_fast
    from gem_fast.demo import run

    if out.exists() and not out.is_dir():
        fail(f"the output folder {out} is a file")
    try:
        out.mkdir(parents=True, exist_ok=True)  # what is mistyped should not cost the loading of a model
        overlays = run(gem_fast.load("gem-tiny"), out)
    except (gem_fast.ModelError, OSError) as error:
        fail(str(error))
    for path in overlays:
        say(str(path))
    say(f"Overlays, label images with their legends, and a heat map for each word are in {out.resolve()}")
