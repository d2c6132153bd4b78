"""Linear layers whose weights an export reads, which makes them plain: as they were after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gem_fast.towers.layer import Linear

if TYPE_CHECKING:
    from gem_fast import GemModel


@contextmanager
def packed_again(model: "GemModel") -> Iterator[None]:
    """Lay out anew, at the end, the weights that are packed now and are read inside."""
    towers = (model.vision, model.text.tower)
    layers = [each for tower in towers for each in tower.modules() if isinstance(each, Linear) and each.held.is_mkldnn]
    try:
        yield
    finally:
        for layer in layers:
            layer.prepack()
