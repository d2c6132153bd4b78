"""Exported models on ONNX Runtime: needs numpy, onnxruntime, Pillow and tokenizers, and no torch.

from gem_fast.export.runtime import GemRuntime

model = GemRuntime("exported")
result = model.segment("photo.jpg", ["cat", "dog"])
"""

from gem_fast.errors import missing_extra

try:
    from .model import GemRuntime
    from .options import RuntimeOptions
except ModuleNotFoundError as error:
    raise missing_extra("gem_fast.export.runtime", "runtime", error) from error

__all__ = ["GemRuntime", "RuntimeOptions"]
