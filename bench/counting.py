"""Work of one forward as counted from its shapes: operations and the least memory traffic, summed over its kernels."""

from dataclasses import dataclass

import torch

from gem_fast.options import GemOptions
from gem_fast.towers.vit import VisionConfig

from .work import Task, forward

_ATTENTION = ("q·k attention", "iterations", "assignment")
_DECODING = ("scores", "labels")


@dataclass(frozen=True)
class ForwardWork:
    """Operations (a multiply-add is two) and bytes of a forward.

    Attributes:
        linear: of the patch embedding and the linear layers.
        attention: of the products of attention, original and self-self.
        traffic: bytes that must move at the least, by the rule of `work.py`.
    """

    linear: float
    attention: float
    traffic: float

    @property
    def flops(self) -> float:
        return self.linear + self.attention


def forward_work(
    config: VisionConfig,
    batch: int,
    size: int,
    *,
    gem_blocks: int = 6,
    iterations: int = 1,
    projections: str = "qkv",
    dtype: str = "float32",
) -> ForwardWork:
    """Work of GEM's patch features of `batch` images of `size`×`size`; what only the unchanged path needs left out.

    Products of self-self attention count in full, though p pᵀ is symmetric.
    """
    options = GemOptions(gem_blocks=gem_blocks, iterations=iterations, projections=projections)
    task = Task(config, batch, size, options, getattr(torch, dtype).itemsize)
    works = [w for w in forward(task) if w.kernel not in _DECODING]
    attention = sum(w.times * w.flop for w in works if w.kernel in _ATTENTION)
    linear = sum(w.times * w.flop for w in works) - attention
    return ForwardWork(linear, attention, sum(w.times * w.bytes for w in works))
