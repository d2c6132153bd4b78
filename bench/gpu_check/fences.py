"""Fences round tensors: NaN before and behind them, so that a kernel that reads or writes past an end shows."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

BAND = 1 << 16  # elements on each side: more than any tile's rows, and the alignment stays
_ALLOCATE = (torch.empty, torch.empty_like, torch.Tensor.new_empty)


def fenced(tensor: Tensor, shift: int = 0) -> Tensor:
    """A copy of a tensor, contiguous, between two bands of NaN; `shift` elements further, where that is misaligned."""
    _, inner = _between_bands(tensor, shift)
    inner.copy_(tensor)
    return inner


def _between_bands(like: Tensor, shift: int = 0) -> tuple[Tensor, Tensor]:
    poison = torch.nan if like.is_floating_point() else torch.iinfo(like.dtype).max
    whole = torch.full((like.numel() + 2 * BAND,), poison, dtype=like.dtype, device=like.device)
    return whole, whole[BAND + shift : BAND + shift + like.numel()].view(like.shape)


class Fences(TorchFunctionMode):
    """Meanwhile, what Python code allocates is full of NaN, or of the largest integer, and fenced with the same.

    An element that is never written shows in the result; `broken` tells whether a fence was written to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.allocated: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _ALLOCATE or result.dtype is torch.bool:
            return result
        whole, inner = _between_bands(result)
        self.allocated.append(whole)
        return inner

    def broken(self) -> bool:
        """Whether a band has another value than the poison."""
        return any(_written(band) for whole in self.allocated for band in (whole[:BAND], whole[-BAND:]))


def _written(band: Tensor) -> bool:
    clean = band.isnan() if band.is_floating_point() else band == torch.iinfo(band.dtype).max
    return not bool(clean.all())
