"""gem_fast: open-vocabulary segmentation with GEM (CVPR 2024), fast.

import gem_fast

model = gem_fast.load("gem-tiny")
result = model.segment("photo.jpg", ["cat", "dog"])
result.overlay().show()
"""

from importlib.metadata import version as _version

from .checkpoint import ModelError, pretrained_tags, supported_models
from .files import segment_files
from .images import ImageError
from .loading import load
from .model import GemModel
from .options import Defaults, GemOptions
from .segmentation import Segmentation

__version__ = _version("gem_fast")
__all__ = [
    "Defaults",
    "GemModel",
    "GemOptions",
    "ImageError",
    "ModelError",
    "Segmentation",
    "load",
    "pretrained_tags",
    "segment_files",
    "supported_models",
]
