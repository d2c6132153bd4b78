"""Weights of a linear layer in int8, in the order in which the native kernel reads them."""

from typing import NamedTuple

import torch
from torch import Tensor

PANEL = 32  # outputs whose weights lie together
MOST_INPUTS = 2**16  # beyond, a sum of products of a byte and an int8 may not fit into an int32


class Int8Weight(NamedTuple):
    """A linear layer whose weight `w [O, I]` is `scale · values`, with a scale for each output.

    Attributes:
        values: `[panels, words, 32, 4]` int8, -127 to 127: four inputs of each of 32 outputs lie together.
        factors: `[3, panels * 32]` float32: the scales, the sums of an output's values, the biases.
        inputs, outputs: I and O.
    """

    values: Tensor
    factors: Tensor
    inputs: int
    outputs: int

    def rows(self) -> Tensor:
        """The values as `[O, I]`."""
        return self.values.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)[: self.outputs, : self.inputs]


def quantize_weight(weight: Tensor, bias: Tensor | None = None) -> Int8Weight:
    """Each output's weights rounded to -127..127 times a scale of its own.

    A row that isn't finite gets a scale that isn't, so that no finite number comes of it.

    Args:
        weight, bias: `[O, I]` and `[O]` or None, floating.

    Raises:
        ValueError: there are more inputs than an int32 can sum up.
    """
    outputs, inputs = weight.shape
    if inputs > MOST_INPUTS:
        raise ValueError(f"int8 takes up to {MOST_INPUTS} inputs, got {inputs}")
    wide = weight.to(torch.float32)
    scale = wide.abs().amax(1) / 127
    values = (wide / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round().nan_to_num(0, 0, 0)
    values = values.clamp(-127, 127).to(torch.int8)
    columns = outputs + -outputs % PANEL
    factors = wide.new_zeros(3, columns)
    factors[0, :outputs], factors[1, :outputs] = scale, values.sum(1, dtype=torch.int32)
    if bias is not None:
        factors[2, :outputs] = bias
    padded = torch.nn.functional.pad(values, (0, -inputs % 4, 0, columns - outputs))
    panels = padded.view(columns // PANEL, PANEL, -1, 4).permute(0, 2, 1, 3).contiguous()
    return Int8Weight(panels, factors, inputs, outputs)
