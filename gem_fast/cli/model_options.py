"""Options that say which model a command loads and how it reads images, the same in every command."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class Pooling(str, Enum):
    head = "head"
    value = "value"


Model = Annotated[str, typer.Option(help="Name (`gem-fast models` lists them) or folder.")]
Pretrained = Annotated[str | None, typer.Option(help="open_clip's tag of the weights.")]
Weights = Annotated[Path | None, typer.Option(help="Local file or folder of weights instead of a tag.")]
Tokenizer = Annotated[
    Path | None, typer.Option(help="tokenizer.json or vocab.txt, or their folder, for a model without CLIP's own.")
]
Method = Annotated[
    str, typer.Option(help="What makes the features: gem, clip, maskclip, sclip, ...; docs/methods.md has them.")
]
GemBlocks = Annotated[int | None, typer.Option(help="Last blocks with a GEM path (default: the model's).")]
Iterations = Annotated[int | None, typer.Option(help="Self-self attention iterations.")]
InverseTemperature = Annotated[float | None, typer.Option(help="Fixed 1/τ instead of the adaptive one.")]
PoolingOption = Annotated[
    Pooling | None,
    typer.Option(help="SigLIP, PE: a patch by the model's whole head (default), or what its attention adds up."),
]
Rotated = Annotated[bool, typer.Option("--rotated", help="EVA02, PE: the method sees q and k turned by their places.")]
Sigmoid = Annotated[bool, typer.Option("--sigmoid", help="SigLIP: confidences by a sigmoid instead of the softmax.")]


def chosen(**settings: Any) -> dict[str, Any]:
    """The arguments of `gem_fast.load` that were asked for; those left at None or False are the model's own."""
    given = {name: value for name, value in settings.items() if value is not None and value is not False}
    return {name: value.value if isinstance(value, Enum) else value for name, value in given.items()}
