"""Preprocessing as ONNX nodes: images of any size to normalised pixels, byte for byte as the engine makes them."""

import numpy as np
from onnx import TensorProto

from .builder import GraphBuilder
from .resampling import byte_matrices


def write_preprocessing(
    graph: GraphBuilder, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> str:
    """Add the input `image`, uint8 `[batch, image_height, image_width, 3]`; returns pixels `[batch, 3, H, W]` float32.

    Both sides are resized to `size` (the policy `"squash"`) with antialiased bicubic resampling: columns first, then
    rows, each rounded to 0..255, as torch does.
    """
    op, constant = graph.op, graph.constant
    image = graph.input("image", TensorProto.UINT8, ["batch", "image_height", "image_width", 3])
    height, width = (op("Shape", image, start=i, end=i + 1) for i in (1, 2))
    values = graph.real(op("Transpose", image, perm=[0, 3, 1, 2]))
    columns = [op("Transpose", each, perm=[1, 0]) for each in byte_matrices(graph, width, constant([size[1]]))]
    narrowed = _to_bytes(graph, *(op("MatMul", values, each) for each in columns))
    rows = byte_matrices(graph, height, constant([size[0]]))
    resized = _to_bytes(graph, *(op("MatMul", each, narrowed) for each in rows))
    unit = op("Div", resized, graph.scalar(255.0))
    centre, spread = (graph.constant(np.reshape(each, (3, 1, 1)), np.float32) for each in (mean, std))
    return op("Div", op("Sub", unit, centre), spread)


def _to_bytes(graph: GraphBuilder, coarse: str, rest: str) -> str:
    """The sum of both rounded to the nearest of 0..255, halves upwards; the sum itself would not be exact."""
    op = graph.op
    raised = op("Add", coarse, graph.scalar(0.5))
    whole = op("Floor", raised)
    carried = op("Floor", op("Add", op("Sub", raised, whole), rest))
    return op("Clip", op("Add", whole, carried), graph.scalar(0.0), graph.scalar(255.0))
