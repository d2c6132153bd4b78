"""What the check of an export found, and the model that was exported; what the runtime here runs."""

import onnxruntime
import pytest

from gem_fast.towers.layer import Linear


def largest_error(manifest, output="patch_features"):
    """The largest relative error of an output."""
    return max(row.relative for row in manifest.check if row.output == output)


def fewest_labels(manifest):
    """The smallest share of pixels with the engine's label."""
    return min(row.labels for row in manifest.check if row.output == "patch_features")


def packed(model):
    """Whether each linear layer's weight lies as the CPU's product reads it."""
    layers = (each for tower in (model.vision, model.text.tower) for each in tower.modules())
    return [each.is_packed for each in layers if isinstance(each, Linear)]


def require_runtime(opset, attention, dtype):
    """Skip what ONNX Runtime before 1.24 can't do: 1.23 is the last for Python 3.10."""
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 24):
        return
    if opset > 23:
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} runs no opset {opset}")
    if attention == "onnx" and dtype == "fp16":
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} rounds more than torch in float16's Attention")
