"""How a TIFF file's first image is stored, by its tags. Source: TIFF 6.0 and its technical notes."""

from dataclasses import dataclass

import numpy as np

from ...errors import ImageError
from ..limits import MAX_PIXELS
from .tags import Tags

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, PLANES, PREDICTOR = 273, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT = 322, 323, 324, 325, 338, 339
LAYOUT_TAGS = frozenset({
    WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER,
    STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, PLANES, PREDICTOR,
    TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT,
})  # fmt: skip
COMPRESSIONS = {
    1: "none",
    5: "LZW",
    8: "Deflate",
    32773: "PackBits",
    32946: "Deflate",
    34925: "LZMA",
    50000: "Zstandard",
}
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}  # samples by photometric: WhiteIsZero, BlackIsZero, RGB, CMYK
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # unsigned, signed, floating; 4 is undefined
_DEPTHS = {"u": range(1, 33), "i": (8, 16, 32), "f": (16, 32, 64)}
_MAX_BLOCK_SIDE = 1 << 20
_MAX_BYTES = 12 * MAX_PIXELS  # of all samples, as of the largest image in 32-bit RGB


@dataclass(frozen=True)
class Layout:
    """How the samples are stored.

    Attributes:
        order: "<" or ">", of samples that fill bytes.
        kind: "u" unsigned, "i" signed, "f" floating.
        block: height and width of a strip or tile; a tile is stored whole even where it juts out.
        alpha: the channel that is alpha, None without; `premultiplied` if the colours are multiplied by it.
    """

    order: str
    height: int
    width: int
    bits: int
    kind: str
    photometric: int
    samples: int
    planar: bool
    block: tuple[int, int]
    tiled: bool
    compression: int
    predictor: int
    reverse: bool
    offsets: np.ndarray
    counts: np.ndarray
    alpha: int | None
    premultiplied: bool

    @property
    def colours(self) -> int:
        return _COLOURS[self.photometric]

    @property
    def inverted(self) -> bool:
        return self.photometric == 0

    @property
    def dtype(self) -> np.dtype:
        """Of a sample as `samples.read_samples` takes it from a block."""
        width = next(width for width in (8, 16, 32, 64) if self.bits <= width)
        return np.dtype(f"{self.order}{self.kind}{width // 8}")


def suits_pillow(tags: Tags) -> bool:
    """Whether Pillow reads it right: samples of 8 bits without a sign, in one plane; or a single one of fewer bits."""
    samples = tags.one(SAMPLES, 1)
    bits = tags.values(BITS, (1,))[:samples]
    unsigned = all(_KINDS.get(kind) == "u" for kind in tags.values(SAMPLE_FORMAT, (1,)))
    ours = tags.one(COMPRESSION, 1) in COMPRESSIONS and tags.one(PHOTOMETRIC, 1) in _COLOURS
    if tags.one(PLANES, 1) == 2 and samples > 1 and ours:
        return False
    return unsigned and (set(bits) == {8} or (samples == 1 and bits[0] < 8))


def layout(tags: Tags) -> Layout:
    """The layout by the tags.

    Raises:
        ImageError: a tag is missing or contradicts another, or samples of this kind can't be read.
    """
    height, width, samples = tags.one(HEIGHT), tags.one(WIDTH), tags.one(SAMPLES, 1)
    bits, kind = _sample(tags, samples)
    photometric, compression = tags.one(PHOTOMETRIC, 1), tags.one(COMPRESSION, 1)
    if photometric not in _COLOURS:
        raise ImageError(f"a TIFF of {bits} bits with the photometric interpretation {photometric} can't be read")
    if compression not in COMPRESSIONS:
        raise ImageError(f"a TIFF of {bits} bits with the compression {compression} can't be read")
    colours = _COLOURS[photometric]
    extra = tags.values(EXTRA_SAMPLES, ())[: max(0, samples - colours)]
    alpha = next((place for place, each in enumerate(extra) if each in (1, 2)), None)
    # A second sample that no tag explains is passed over, as in Pillow; more are bands of something else.
    if samples < colours or (colours == 1 and samples > 2 and alpha is None):
        raise ImageError(f"a TIFF of {samples} samples a pixel that are no grey, RGB or CMYK can't be read")
    if height * width * samples * bits > 8 * _MAX_BYTES:
        raise ImageError(f"{width}×{height} with {samples} samples of {bits} bits is more than {_MAX_BYTES:,} bytes")
    tiled, planar = TILE_OFFSETS in tags, tags.one(PLANES, 1) == 2 and samples > 1
    block = (
        (tags.one(TILE_HEIGHT), tags.one(TILE_WIDTH))
        if tiled
        else (min(tags.one(ROWS_PER_STRIP, height), height), width)
    )
    if min(height, width, *block) < 1 or max(block) > _MAX_BLOCK_SIDE:
        raise ImageError(f"a TIFF of {width}×{height} in blocks of {block[1]}×{block[0]} can't be read")
    offsets, counts = (
        tags.array(TILE_OFFSETS if tiled else STRIP_OFFSETS),
        tags.array(TILE_COUNTS if tiled else STRIP_COUNTS),
    )
    wanted = -(-width // block[1]) * -(-height // block[0]) * (samples if planar else 1)
    if min(len(offsets), len(counts)) < wanted:
        raise ImageError(f"damaged or truncated ({len(offsets):,} of {wanted:,} strips or tiles)")
    return Layout(
        tags.order, height, width, bits, kind, photometric, samples, planar, block, tiled, compression,
        tags.one(PREDICTOR, 1), tags.one(FILL_ORDER, 1) == 2, offsets, counts,
        None if alpha is None else colours + alpha, alpha is not None and extra[alpha] == 1,
    )  # fmt: skip


def _sample(tags: Tags, samples: int) -> tuple[int, str]:
    """Bits and kind that all samples of a pixel share."""
    bits = sorted(set(tags.values(BITS, (1,))[:samples]))
    kinds = sorted(set(tags.values(SAMPLE_FORMAT, (1,))[:samples]))
    if len(bits) == len(kinds) == 1 and bits[0] in _DEPTHS.get(kind := _KINDS.get(kinds[0], ""), ()):
        return bits[0], kind
    raise ImageError(f"a TIFF with samples of {bits} bits in the formats {kinds} can't be read")
