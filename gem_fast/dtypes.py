"""Names of floating types: torch's own, and the short ones that are taken for them. Needs no torch."""

from typing import Any

DTYPES = ("float32", "bfloat16", "float16")
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def dtype_name(dtype: Any) -> str:
    """One of `DTYPES` for its name, its short name, or torch's type; ValueError for anything else."""
    text = str(dtype).removeprefix("torch.")
    name = _SHORT.get(text, text)
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)} (or {', '.join(_SHORT)}), got {dtype}")
    return name
