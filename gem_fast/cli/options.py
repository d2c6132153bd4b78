"""Options that several commands have."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..dtypes import DTYPES, dtype_name


class Resize(str, Enum):
    shorter = "shorter"
    squash = "squash"
    exact = "exact"


class Pooling(str, Enum):
    head = "head"
    value = "value"


ModelName = Annotated[str, typer.Option(help="Name (`gem-fast models` lists them) or folder.")]
Pretrained = Annotated[str | None, typer.Option(help="open_clip's tag of the weights.")]
Weights = Annotated[Path | None, typer.Option(help="Local file or folder of weights instead of a tag.")]
Tokenizer = Annotated[
    Path | None, typer.Option(help="tokenizer.json or vocab.txt, or their folder, for a model without CLIP's own.")
]
MethodName = Annotated[
    str, typer.Option(help="What makes the features: gem, clip, maskclip, sclip, ...; docs/methods.md has them.")
]
GemBlocks = Annotated[int | None, typer.Option(help="Last blocks with a GEM path (default: the model's).")]
Iterations = Annotated[int | None, typer.Option(help="Self-self attention iterations.")]
InverseTemperature = Annotated[float | None, typer.Option(help="Fixed 1/τ instead of the adaptive one.")]
PoolingName = Annotated[
    Pooling | None,
    typer.Option(help="SigLIP, PE: a patch by the model's whole head (default), or what its attention adds up."),
]
Rotated = Annotated[bool, typer.Option("--rotated", help="EVA02, PE: the method sees q and k turned by their places.")]
Sigmoid = Annotated[bool, typer.Option("--sigmoid", help="SigLIP: confidences by a sigmoid instead of the softmax.")]


def chosen(**settings: Any) -> dict[str, Any]:
    """The arguments of `gem_fast.load` that were asked for; those left at None or False are the model's own."""
    given = {name: value for name, value in settings.items() if value is not None and value is not False}
    return {name: value.value if isinstance(value, Enum) else value for name, value in given.items()}


def dtype_option(what: str, also: tuple[str, ...] = (), elsewhere: str = "") -> Any:
    """`--dtype`, one of `DTYPES` by its name or its short name, or of the names `also`; its help says of what, and
    `elsewhere` what another option is for."""

    def parse(text: str) -> str:
        try:
            return dtype_name(text, also)
        except ValueError as error:
            raise typer.BadParameter(f"{error}{elsewhere}") from error

    told = f"{what}: {', '.join((*DTYPES, *also))}; fp32, bf16, fp16 for short{elsewhere}."
    return typer.Option(parser=parse, metavar="TYPE", help=told)


TextDtype = Annotated[str, dtype_option("Type of the text tower, for many words")]
