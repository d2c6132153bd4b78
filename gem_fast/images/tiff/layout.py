"""How a TIFF file's first image is stored, by its tags. Source: TIFF 6.0 and its technical notes."""

from dataclasses import dataclass

import numpy as np

from ...errors import ImageError
from .blocks import Blocks
from .tags import (
    BITS,
    COMPRESSION,
    EXTRA_SAMPLES,
    FILL_ORDER,
    PHOTOMETRIC,
    PLANES,
    PREDICTOR,
    SAMPLE_FORMAT,
    SAMPLES,
    STRIP_COUNTS,
    TILE_COUNTS,
    TILE_OFFSETS,
    TILE_WIDTH,
    Tags,
)

COMPRESSIONS = {
    1: "none",
    5: "LZW",
    8: "Deflate",
    32773: "PackBits",
    32946: "Deflate",
    34925: "LZMA",
    50000: "Zstandard",
}
_PREDICTED = ("LZW", "Deflate", "LZMA", "Zstandard")  # libtiff passes over a predictor with others
_MODES = {0: "L", 1: "L", 2: "RGB", 5: "CMYK", 8: "LAB"}  # Pillow's by photometric; 0 is WhiteIsZero
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # unsigned, signed, floating; 4 is undefined
_DEPTHS = {"u": range(1, 33), "i": (8, 16, 32), "f": (16, 32, 64)}
_ALPHAS = (1, 2, 999)  # multiplied into the colours, not multiplied, and what Corel Draw writes for that


@dataclass(frozen=True)
class Layout:
    """How the samples are stored.

    Attributes:
        order: "<" or ">", of samples that fill bytes.
        kind: "u" unsigned, "i" signed, "f" floating.
        alpha: the channel that is alpha, None without; `premultiplied` if the colours are multiplied by it.
    """

    blocks: Blocks
    order: str
    bits: int
    kind: str
    photometric: int
    compression: int
    predictor: int
    reverse: bool
    counts: np.ndarray
    alpha: int | None
    premultiplied: bool

    @property
    def mode(self) -> str:
        """Of a Pillow image of the colours."""
        return _MODES[self.photometric]

    @property
    def colours(self) -> int:
        return len(self.mode)

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
    ours = tags.one(COMPRESSION, 1) in COMPRESSIONS and tags.one(PHOTOMETRIC, 1) in _MODES
    # Pillow takes WhiteIsZero for granted where the tag is missing, which libtiff does of faxes only.
    if ours and (PHOTOMETRIC not in tags or (tags.one(PLANES, 1) == 2 and samples > 1)):
        return False
    if ours and TILE_WIDTH in tags and TILE_OFFSETS not in tags:  # tiles that the strips' tags name, as libtiff has it
        return False
    return unsigned and (set(bits) == {8} or (samples == 1 and bits[0] < 8))


def layout(tags: Tags, stored: Blocks) -> Layout:
    """The layout of blocks by the tags.

    Raises:
        ImageError: a tag is missing or contradicts another, or samples of this kind can't be read.
    """
    counts = tags.array(TILE_COUNTS if TILE_COUNTS in tags else STRIP_COUNTS)
    if len(counts) < stored.count:
        raise ImageError(f"damaged or truncated (lengths of {len(counts):,} of {stored.count:,} strips or tiles)")
    bits, kind = _sample(tags, stored.samples)
    photometric, compression = tags.one(PHOTOMETRIC, 1), tags.one(COMPRESSION, 1)
    if photometric not in _MODES or (_MODES[photometric] == "LAB" and (bits, kind) != (8, "u")):
        raise ImageError(f"a TIFF of {bits} bits with the photometric interpretation {photometric} can't be read")
    if compression not in COMPRESSIONS:
        raise ImageError(f"a TIFF of {bits} bits with the compression {compression} can't be read")
    alpha, premultiplied = _alpha(tags, stored.samples, _MODES[photometric])
    predictor = tags.one(PREDICTOR, 1) if COMPRESSIONS[compression] in _PREDICTED else 1
    return Layout(
        stored, tags.order, bits, kind, photometric, compression, predictor, tags.one(FILL_ORDER, 1) == 2,
        counts, alpha, premultiplied,
    )  # fmt: skip


def _alpha(tags: Tags, samples: int, mode: str) -> tuple[int | None, bool]:
    """The channel that is alpha, and whether the colours are multiplied by it."""
    colours = len(mode)
    # Of RGB the fourth is alpha where no tag says what it is, as in Pillow.
    extra = tags.values(EXTRA_SAMPLES, (2,) if mode == "RGB" and samples == 4 else ())[: max(0, samples - colours)]
    alpha = next((place for place, each in enumerate(extra) if each in _ALPHAS), None)
    # A second sample that no tag explains is passed over, as in Pillow; more are bands of something else.
    if samples < colours or (colours == 1 and samples > 2 and alpha is None):
        raise ImageError(f"a TIFF of {samples} samples a pixel that are no grey, RGB, CMYK or CIELAB can't be read")
    if alpha is None:
        return None, False
    if mode == "LAB" and extra[alpha] == 1:
        raise ImageError("a TIFF of CIELAB that is multiplied by alpha can't be read")
    return colours + alpha, extra[alpha] == 1


def _sample(tags: Tags, samples: int) -> tuple[int, str]:
    """Bits and kind that all samples of a pixel share."""
    bits = sorted(set(tags.values(BITS, (1,))[:samples]))
    kinds = sorted(set(tags.values(SAMPLE_FORMAT, (1,))[:samples]))
    if len(bits) == len(kinds) == 1 and bits[0] in _DEPTHS.get(kind := _KINDS.get(kinds[0], ""), ()):
        return bits[0], kind
    raise ImageError(f"a TIFF with samples of {bits} bits in the formats {kinds} can't be read")
