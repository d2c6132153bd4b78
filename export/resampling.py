"""Resampling as products: the matrix of an axis, computed in the graph from the sizes."""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from .builder import GraphBuilder

_CUBIC = -0.5  # the coefficient of antialiased bicubic resampling in Pillow and torch
_PLAIN_CUBIC = -0.75  # that of torch without antialias
# torch's weights for bytes: integers of so many bits, over a power of two up to this one.
_WEIGHT_BITS, _MOST_SHIFT = 15, 22
_COARSE = 2.0**15


def bilinear_matrix(graph: GraphBuilder, inputs: str, outputs: str) -> str:
    """`[outputs, inputs]` float32 of bilinear resampling, as `torch.nn.functional.interpolate` does it.

    Args:
        graph: where to write.
        inputs, outputs: lengths of the axis, int64 `[1]`.
    """
    op = graph.op
    centres, _ = _centres(graph, inputs, outputs)
    last = op("Sub", _wide(graph, inputs), _number(graph, 1))
    inside = op("Min", op("Max", op("Sub", centres, _number(graph, 0.5)), _number(graph, 0)), last)
    distance = op("Abs", op("Sub", inside, _range(graph, inputs)))
    triangle = op("Max", op("Sub", _number(graph, 1), distance), _number(graph, 0))
    return graph.real(triangle)


def bicubic_matrix(graph: GraphBuilder, inputs: str, outputs: str) -> str:
    """`[outputs, inputs]` float32 of bicubic resampling with antialias, as torch and Pillow do it."""
    return graph.real(_bicubic(graph, inputs, outputs))


def byte_matrices(graph: GraphBuilder, inputs: str, outputs: str) -> tuple[str, str]:
    """Two matrices `[outputs, inputs]` float32 whose sum is that of bicubic resampling as torch does it on bytes.

    torch rounds the weights to integers over a power of two, as large a one as leaves the largest weight 15 bits. Here
    they are multiples of 2^-15 and a rest of up to 22 binary places: a product of bytes with either is exact in float32
    for images up to 250 times the output, so that no order of its sums, and no runtime, gives another byte.

    Source: `_compute_index_ranges_int16_weights` in torch's UpSampleKernel.cpp.
    """
    op, number = graph.op, lambda value: _number(graph, value)
    weights = _bicubic(graph, inputs, outputs)
    powers = number(2.0 ** np.arange(1, _MOST_SHIFT + 1))
    largest = op("Add", op("Mul", op("ReduceMax", weights, keepdims=0), powers), number(0.5))
    fitting = op("Where", op("Less", largest, number(2.0**_WEIGHT_BITS)), powers, number(1))
    scale = op("ReduceMax", fitting, keepdims=0)
    size = op("Floor", op("Add", op("Mul", op("Abs", weights), scale), number(0.5)))  # halves away from zero
    rounded = op("Div", op("Mul", op("Sign", weights), size), scale)
    coarse = op("Div", op("Floor", op("Add", op("Mul", rounded, number(_COARSE)), number(0.5))), number(_COARSE))
    return graph.real(coarse), graph.real(op("Sub", rounded, coarse))


def _bicubic(graph: GraphBuilder, inputs: str, outputs: str) -> str:
    """Weights `[outputs, inputs]` float64."""

    def cubic(x: str) -> str:
        return graph.op("Where", graph.op("Less", x, _number(graph, 1)), *_cubic(graph, x, _CUBIC))

    return _antialiased(graph, inputs, outputs, cubic)


def smooth_bilinear_matrix(graph: GraphBuilder, inputs: str, outputs: str) -> str:
    """`[outputs, inputs]` float32 of bilinear resampling with antialias, as torch and Pillow do it."""

    def triangle(x: str) -> str:
        return graph.op("Max", graph.op("Sub", _number(graph, 1), x), _number(graph, 0))

    return graph.real(_antialiased(graph, inputs, outputs, triangle))


def _antialiased(graph: GraphBuilder, inputs: str, outputs: str, kernel: Callable[[str], str]) -> str:
    """Weights `[outputs, inputs]` float64: of inputs within two steps the kernel's of their distance in steps.

    A step is the larger of an input and an output pixel; the weights of an output sum to 1.
    """
    op = graph.op
    # Distances of centres in half pixels of both grids: integers, so that nothing is lost where float64 is float32.
    ours = op("Mul", _odd(graph, inputs), outputs)
    theirs = op("Unsqueeze", op("Mul", _odd(graph, outputs), inputs), graph.constant([1]))
    step = op("Mul", op("Max", inputs, outputs), graph.constant([2]))
    apart = op("Min", op("Abs", op("Sub", ours, theirs)), op("Mul", step, graph.constant([2])))
    weights = kernel(op("Div", _wide(graph, apart), _wide(graph, step)))
    return op("Div", weights, op("ReduceSum", weights, graph.constant([1]), keepdims=1))


def _odd(graph: GraphBuilder, length: str) -> str:
    """1, 3, … int64, as many as the length says."""
    end = graph.op("Squeeze", graph.op("Mul", length, graph.constant([2])))
    return graph.op("Range", graph.constant(1), end, graph.constant(2))


def plain_bicubic_matrix(graph: GraphBuilder, inputs: str, outputs: str) -> str:
    """`[outputs, inputs]` float32 of bicubic resampling without antialias, as torch does it.

    Of the four inputs around an output's centre, those beyond the border count for the one at the border.
    """
    op, constant = graph.op, graph.constant
    centres, _ = _centres(graph, inputs, outputs)
    past = op("Squeeze", op("Add", inputs, constant([2])), constant([0]))
    places = _wide(graph, op("Range", constant(-2), past, constant(1)))  # two more on each side
    at = op("Sub", centres, _number(graph, 0.5))
    x = op("Min", op("Abs", op("Sub", places, at)), _number(graph, 2))
    weights = op("Where", op("Less", x, _number(graph, 1)), *_cubic(graph, x, _PLAIN_CUBIC))  # [outputs, inputs + 4]
    last = op("Sub", inputs, constant([1]))
    inside = op("Max", op("Min", places, _wide(graph, last)), _number(graph, 0))
    hit = op("Equal", op("Unsqueeze", inside, constant([1])), op("Unsqueeze", _range(graph, inputs), constant([0])))
    return op("Cast", op("MatMul", weights, _wide(graph, hit)), to=TensorProto.FLOAT)


# By the resampling of a tower's position embeddings.
MATRICES = {"bicubic": bicubic_matrix, "bilinear": smooth_bilinear_matrix, "plain": plain_bicubic_matrix}


def _cubic(graph: GraphBuilder, x: str, a: float) -> tuple[str, str]:
    """The cubic kernel of distances below 1, and of those from 1 to 2."""
    return _polynomial(graph, x, [a + 2, -(a + 3), 0, 1]), _polynomial(graph, x, [a, -5 * a, 8 * a, -4 * a])


def _centres(graph: GraphBuilder, inputs: str, outputs: str) -> tuple[str, str]:
    """Centres of the output pixels in input pixels, float64 `[outputs, 1]`, and the step from one to the next."""
    op = graph.op
    step = op("Div", _wide(graph, inputs), _wide(graph, outputs))
    places = op("Unsqueeze", _range(graph, outputs), graph.constant([1]))
    return op("Mul", op("Add", places, _number(graph, 0.5)), step), step


def _range(graph: GraphBuilder, length: str) -> str:
    """0, 1, … as float64 `[length]`."""
    limit = graph.op("Squeeze", length)
    return _wide(graph, graph.op("Range", graph.constant(0), limit, graph.constant(1)))


def _polynomial(graph: GraphBuilder, x: str, coefficients: list[float]) -> str:
    """By Horner's rule, the highest power first."""
    value = _number(graph, coefficients[0])
    for coefficient in coefficients[1:]:
        value = graph.op("Add", graph.op("Mul", value, x), _number(graph, coefficient))
    return value


def _wide(graph: GraphBuilder, x: str) -> str:
    return graph.op("Cast", x, to=TensorProto.DOUBLE)


def _number(graph: GraphBuilder, value: float | np.ndarray) -> str:
    return graph.constant(value, np.float64)
