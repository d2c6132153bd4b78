"""What a deployer takes away: ONNX graphs, their manifest, and what runs them without torch.

Nothing here imports torch or onnx before it is used, so that the runtime works where they are not installed.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from .onnx_export import export_onnx
    from .options import ExportError, ExportOptions

__all__ = ["ExportError", "ExportOptions", "export_onnx"]
_HOMES = {"ExportError": "options", "ExportOptions": "options", "export_onnx": "onnx_export"}


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(f".{_HOMES[name]}", __name__), name)
    return value
