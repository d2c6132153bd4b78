"""Names of types: torch's own, and the short ones that are taken for them. Needs no torch."""

from typing import Any

DTYPES = ("float32", "bfloat16", "float16")
INT8 = "int8"  # of linear layers, where the engine runs on a CPU
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def dtype_name(dtype: Any, also: tuple[str, ...] = (), argument: str = "dtype") -> str:
    """One of `DTYPES` or `also` for its name, its short name, or torch's type; else ValueError, naming the argument."""
    text = str(dtype).removeprefix("torch.")
    name = _SHORT.get(text, text)
    if name not in (*DTYPES, *also):
        names = ", ".join((*DTYPES, *also))
        raise ValueError(f"{argument} must be one of {names} (or {', '.join(_SHORT)}), got {dtype}")
    return name
