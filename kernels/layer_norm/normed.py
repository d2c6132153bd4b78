"""What LayerNorm gives beside its output, by every backend."""

from typing import NamedTuple

from torch import Tensor


class Normed(NamedTuple):
    """What one pass over the tokens gives.

    Attributes:
        tokens: the sum of x, with what is in front of it, and branch, `[B, N, C]`.
        y: their LayerNorm, `[B, N, C]`.
        scale: of each image, `[B]`, the inverse temperature `mean_n |y_n| / sqrt(head_width)`, float32 or wider; from
            Triton of each token, `[B, N]`, of which the attention takes the mean. None if not asked for.
        aside: the sum of `aside`, or None.
    """

    tokens: Tensor
    y: Tensor
    scale: Tensor | None = None
    aside: Tensor | None = None
