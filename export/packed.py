"""Linear layers whose weights an export reads, which makes them plain: as they were after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gem_fast.kernels.linear import Panels

from gem_fast.towers.layer import Linear

if TYPE_CHECKING:
    from gem_fast import GemModel


@contextmanager
def packed_again(model: "GemModel") -> Iterator[None]:
    """Lay out anew, at the end, the weights that are packed now and are read inside."""
    towers = (model.vision, model.text.tower)
    layers = [each for tower in towers for each in tower.modules() if isinstance(each, Linear) and each.is_packed]
    native = [isinstance(each.held, Panels) for each in layers]
    try:
        yield
    finally:
        for layer, own in zip(layers, native, strict=True):
            layer.prepack(own)
