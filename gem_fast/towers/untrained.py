"""Weights of a model that was not trained."""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor


def untrained(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Random float32 weights on torch's default device: matrices as wide as torch's own begin, norms without effect."""
    return {name: _weight(name, shape) for name, shape in shapes.items()}


def _weight(name: str, shape: tuple[int, ...]) -> Tensor:
    if len(shape) == 1 and name.endswith(("weight", "gamma")):
        return torch.ones(shape, dtype=torch.float32)
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=torch.float32)
    inputs = prod(shape[1:]) if len(shape) > 1 else shape[0]
    return torch.randn(shape, dtype=torch.float32).mul_((3 * inputs) ** -0.5)
