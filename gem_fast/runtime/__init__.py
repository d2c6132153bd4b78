"""Exported models on ONNX Runtime: needs onnxruntime and tokenizers beside what is always installed, and no torch.

from gem_fast.runtime import GemRuntime

model = GemRuntime("exported")
result = model.segment("photo.jpg", ["cat", "dog"])
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from .engine import GemRuntime
    from .runtime_options import RuntimeOptions

__all__ = ["GemRuntime", "RuntimeOptions"]
# Imported on first use: the manifest is for who writes exports too, and needs no ONNX Runtime.
_HOMES = {"GemRuntime": "engine", "RuntimeOptions": "runtime_options"}


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = globals()[name] = getattr(_import_module(f".{_HOMES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        from gem_fast.errors import missing_extra

        raise missing_extra("gem_fast.runtime", "runtime", error) from error
    return value
