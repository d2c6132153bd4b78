"""`--dtype`, the same in every command: a type by its name or its short name."""

from typing import Any

import typer

from ..dtypes import DTYPES, dtype_name


def dtype_option(what: str, also: tuple[str, ...] = ()) -> Any:
    """An option that is one of `DTYPES`, or of the names `also`; its help says what it is the type of."""

    def parse(text: str) -> str:
        if text in also:
            return text
        try:
            return dtype_name(text)
        except ValueError as error:
            others = f"; {', '.join(also)} is possible too" if also else ""
            raise typer.BadParameter(f"{error}{others}") from error

    told = f"{what}: {', '.join((*DTYPES, *also))}; fp32, bf16, fp16 for short."
    return typer.Option(parser=parse, metavar="TYPE", help=told)
