"""What a deployer takes away: ONNX graphs with their manifest, TensorRT engines, AOTInductor packages.

Importing this needs neither torch nor onnx.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from gem_fast.errors import ExportError

    from .export_options import ExportOptions
    from .onnx_export import export_onnx

__all__ = ["ExportError", "ExportOptions", "export_onnx"]
_HOMES = {"ExportError": "gem_fast.errors", "ExportOptions": ".export_options", "export_onnx": ".onnx_export"}


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(_HOMES[name], __name__), name)
    return value
