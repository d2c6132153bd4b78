"""Device code of bilinear interpolation with pixel centres at half integers, in exact integers."""

import triton
import triton.language as tl


@triton.jit
def taps(index, inputs, outputs):
    """The two inputs that an output index lies between, and the weight of the second."""
    position = tl.maximum((2 * index + 1) * inputs - outputs, 0)  # in parts of 1 / (2 outputs)
    first = tl.minimum(position // (2 * outputs), inputs - 1)
    weight = (position - first * (2 * outputs)).to(tl.float32) / (2 * outputs)
    return first, tl.minimum(first + 1, inputs - 1), weight


@triton.jit
def lerp(first, second, weight):
    """Exact where both are equal, so that a flat map stays flat."""
    return first + weight * (second - first)


@triton.jit
def corner(k, inputs, outputs):
    """Of the outputs that lie between two neighbouring inputs the first and the last, by k from 0 to 2 inputs - 1."""
    cell = (k + 1) // 2
    start = tl.where(cell == 0, 0, ((2 * cell + 1) * outputs + inputs - 1) // (2 * inputs))
    return tl.minimum(tl.maximum(start - k % 2, 0), outputs - 1)
