"""gem_fast: open-vocabulary segmentation with GEM (CVPR 2024), fast.

import gem_fast

model = gem_fast.load("gem-tiny")
result = model.segment("photo.jpg", ["cat", "dog"])
result.overlay().show()
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from .batch import records, segment_files
    from .errors import ModelError
    from .images import ImageError
    from .loading import load
    from .method import Method, methods
    from .model import GemModel
    from .options import Defaults, GemOptions
    from .segmentation import Segmentation
    from .towers.configs import pretrained_tags, supported_models, unsupported_models

__version__ = _version("gem_fast")
__all__ = [
    "Defaults",
    "GemModel",
    "GemOptions",
    "ImageError",
    "Method",
    "ModelError",
    "Segmentation",
    "load",
    "methods",
    "pretrained_tags",
    "records",
    "segment_files",
    "supported_models",
    "unsupported_models",
]
# Imported on first use: torch takes seconds, and the runtime for exported models does without it.
_HOMES = {
    "Defaults": "options",
    "GemModel": "model",
    "GemOptions": "options",
    "ImageError": "images",
    "Method": "method",
    "ModelError": "errors",
    "Segmentation": "segmentation",
    "load": "loading",
    "methods": "method",
    "pretrained_tags": "towers.configs",
    "records": "batch",
    "segment_files": "batch",
    "supported_models": "towers.configs",
    "unsupported_models": "towers.configs",
}


def __getattr__(name: str) -> _Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = globals()[name] = getattr(_import_module(f".{_HOMES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name in ("torch", "open_clip", "safetensors"):
            from .errors import missing_extra

            raise missing_extra(f"gem_fast.{name}", "engine", error) from error
        raise
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
