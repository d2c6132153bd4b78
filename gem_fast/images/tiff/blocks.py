"""The strips or tiles of a TIFF file's image, refused where they are missing or hold far more than the image."""

from dataclasses import dataclass

import numpy as np

from ...errors import ImageError
from ..limits import MAX_PIXELS
from .tags import (
    BITS,
    HEIGHT,
    PLANES,
    ROWS_PER_STRIP,
    SAMPLES,
    STRIP_OFFSETS,
    TILE_HEIGHT,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    Tags,
)

_MAX_BYTES = 12 * MAX_PIXELS  # of all samples, as of the largest image in 32-bit RGB
_SPARE_BYTES = 1 << 28  # that tiles may hold beside the image: one of 4096 x 4096 in floating RGBA


@dataclass(frozen=True)
class Blocks:
    """Where the samples of an image lie.

    Attributes:
        planar: each block holds one sample of its pixels; all blocks of the first sample come first.
        tiled: they are tiles, stored whole even where they jut out; else strips, whose last may be lower.
        size: height and width of one.
        grid: how many there are below and beside each other, of one plane.
        offsets: places in the file, in the order of the blocks.
    """

    height: int
    width: int
    samples: int
    planar: bool
    tiled: bool
    size: tuple[int, int]
    grid: tuple[int, int]
    offsets: np.ndarray

    @property
    def count(self) -> int:
        return self.grid[0] * self.grid[1] * (self.samples if self.planar else 1)


def blocks(tags: Tags) -> Blocks:
    """The blocks by the tags.

    Raises:
        ImageError: a tag or a block is missing, or they hold too much.
    """
    height, width, samples = tags.one(HEIGHT), tags.one(WIDTH), tags.one(SAMPLES, 1)
    tiled = TILE_WIDTH in tags
    offsets = tags.array(TILE_OFFSETS if TILE_OFFSETS in tags else STRIP_OFFSETS)
    rows, columns = (
        (tags.one(TILE_HEIGHT), tags.one(TILE_WIDTH))
        if tiled
        else (min(tags.one(ROWS_PER_STRIP, height), height), width)
    )
    if min(height, width, rows, columns) < 1:
        raise ImageError(f"a TIFF of {width}×{height} in blocks of {columns}×{rows} can't be read")
    found = Blocks(
        height, width, samples, tags.one(PLANES, 1) == 2 and samples > 1, tiled, (rows, columns),
        (-(-height // rows), -(-width // columns)), offsets,
    )  # fmt: skip
    _check_bytes(found, max(tags.values(BITS, (1,))))
    if len(found.offsets) < found.count:
        raise ImageError(f"damaged or truncated ({len(found.offsets):,} of {found.count:,} strips or tiles)")
    if not found.offsets[: found.count].all():
        raise ImageError("damaged or truncated (strips or tiles lie nowhere in the file)")
    return found


def _check_bytes(found: Blocks, bits: int) -> None:
    """A whole tile is decoded for each pixel in it, and many tiles may name the same bytes of the file."""
    size, image = f"{found.width}×{found.height}", found.height * found.width * found.samples * bits // 8
    if image > _MAX_BYTES:
        raise ImageError(f"{size} with {found.samples} samples of {bits} bits is more than {_MAX_BYTES:,} bytes")
    rows, columns = found.size
    block = rows * columns * (1 if found.planar else found.samples) * bits // 8
    # Of tiles no wider and higher than the image, those that jut out hold less than four times as much.
    if block > image + _SPARE_BYTES or block * found.count > 4 * image + _SPARE_BYTES:
        raise ImageError(
            f"a TIFF of {size} in {found.count:,} blocks of {columns}×{rows}, which hold far more, can't be read"
        )
