"""Exported models on ONNX Runtime: needs numpy, onnxruntime, Pillow and tokenizers, and no torch.

from gem_fast.export.runtime import GemRuntime

model = GemRuntime("exported")
result = model.segment("photo.jpg", ["cat", "dog"])
"""

from .model import GemRuntime
from .options import RuntimeOptions

__all__ = ["GemRuntime", "RuntimeOptions"]
