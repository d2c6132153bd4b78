"""Preprocessing as ONNX nodes: images of any size to normalised pixels, as `gem_fast.preprocess` with Pillow."""

import numpy as np
from onnx import TensorProto

from .builder import GraphBuilder
from .resampling import bicubic_matrix


def write_preprocessing(
    graph: GraphBuilder, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> str:
    """Add the input `image`, uint8 `[batch, image_height, image_width, 3]`; returns pixels `[batch, 3, H, W]` float32.

    Both sides are resized to `size` (the policy `"squash"`) with antialiased bicubic resampling: columns first, then
    rows, each rounded to 0..255, as Pillow does. Pillow computes in fixed point, so a value may differ by 1.
    """
    op, constant = graph.op, graph.constant
    image = graph.input("image", TensorProto.UINT8, ["batch", "image_height", "image_width", 3])
    height, width = (op("Shape", image, start=i, end=i + 1) for i in (1, 2))
    values = graph.real(op("Transpose", image, perm=[0, 3, 1, 2]))
    columns = op("Transpose", bicubic_matrix(graph, width, constant([size[1]])), perm=[1, 0])
    narrowed = _to_bytes(graph, op("MatMul", values, columns))
    resized = _to_bytes(graph, op("MatMul", bicubic_matrix(graph, height, constant([size[0]])), narrowed))
    unit = op("Div", resized, graph.scalar(255.0))
    centre, spread = (graph.constant(np.reshape(each, (3, 1, 1)), np.float32) for each in (mean, std))
    return op("Div", op("Sub", unit, centre), spread)


def _to_bytes(graph: GraphBuilder, x: str) -> str:
    """Rounded to the nearest of 0..255, halves upwards."""
    return graph.op(
        "Clip", graph.op("Floor", graph.op("Add", x, graph.scalar(0.5))), graph.scalar(0.0), graph.scalar(255.0)
    )
