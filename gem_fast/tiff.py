"""TIFF of any depth, sign and layout, where Pillow's reader fails or drops bits. Source: TIFF 6.0 and its notes. Needs no torch."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image

from .errors import ImageError
from .tiff_tags import Tags, read_tags

_PILLOW_DECODES = {5: "LZW", 32773: "PackBits", 34925: "LZMA", 50000: "Zstandard"}
_DEFLATE = (8, 32946)
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}  # samples by photometric: WhiteIsZero, BlackIsZero, RGB, CMYK
_BLOCK_SAMPLES = 1 << 22  # packed samples that are unpacked at once: a byte a bit
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Layout:
    """How the first image of a file is stored.

    Attributes:
        kind: "u" unsigned, "i" signed, "f" floating.
        block: height and width of a strip or tile.
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


def suits_pillow(tags: Tags) -> bool:
    """Whether Pillow reads it right: 8-bit samples without a sign, single ones of fewer bits, and what it alone decodes."""
    bits = tags.values(258, (1,))
    unsigned = all(kind in (1, 4) for kind in tags.values(339, (1,)))
    return unsigned and (set(bits) == {8} or (max(bits) < 8 and tags.one(277, 1) == 1))


def layout(tags: Tags) -> Layout:
    """The layout by the tags.

    Raises:
        ImageError: a tag is missing or contradicts another, or this kind of samples can't be read.
    """
    height, width, samples = tags.one(257), tags.one(256), tags.one(277, 1)
    bits, kinds = set(tags.values(258, (1,))), set(tags.values(339, (1,)))
    photometric = tags.one(262, 1)
    if photometric not in _COLOURS:
        raise ImageError(f"a TIFF of {max(bits)} bits with the photometric interpretation {photometric} can't be read")
    kind = {1: "u", 2: "i", 3: "f", 4: "u"}.get(min(kinds))
    if len(bits) > 1 or len(kinds) > 1 or kind is None:
        raise ImageError(f"a TIFF with samples of {sorted(bits)} bits in the formats {sorted(kinds)} can't be read")
    depth = bits.pop()
    if not (1 <= depth <= 32 if kind == "u" else depth in ((8, 16, 32) if kind == "i" else (16, 32, 64))):
        raise ImageError(f"a TIFF of {depth}-bit {dict(u='unsigned', i='signed', f='floating')[kind]} samples can't be read")
    extra = tags.values(338, ())[: max(0, samples - _COLOURS[photometric])]
    if samples < _COLOURS[photometric] or (photometric < 2 and samples - sum(each in (1, 2) for each in extra) > 2):
        raise ImageError(f"a TIFF of {samples} samples a pixel that are no grey, RGB or CMYK can't be read")
    alpha = next((place for place, each in enumerate(extra) if each in (1, 2)), None)
    tiled = 324 in tags
    block = (tags.one(323), tags.one(322)) if tiled else (min(tags.one(278, height), height), width)
    planar = tags.one(284, 1) == 2 and samples > 1
    if min(height, width, *block) < 1 or max(block) > 1 << 20:
        raise ImageError(f"a TIFF of {width}×{height} in blocks of {block[1]}×{block[0]} can't be read")
    across, down = -(-width // block[1]), -(-height // block[0])
    offsets, counts = tags.array(324 if tiled else 273), tags.array(325 if tiled else 279)
    if min(len(offsets), len(counts)) < across * down * (samples if planar else 1):
        raise ImageError(f"a TIFF of {width}×{height} with {len(offsets)} strips or tiles is incomplete")
    return Layout(
        tags.order, height, width, depth, kind, photometric, samples, planar, block, tiled, tags.one(259, 1),
        tags.one(317, 1), tags.one(266, 1) == 2, offsets, counts,
        None if alpha is None else _COLOURS[photometric] + alpha, alpha is not None and extra[alpha] == 1,
    )  # fmt: skip


def read_samples(file: BinaryIO, form: Layout) -> np.ndarray:
    """The colours and, if there is one, alpha: `[H, W, C]` in the machine's byte order.

    Raises:
        ImageError: the compression can't be read, or a strip or tile is missing or too short.
    """
    wanted = [*range(form.colours), *([] if form.alpha is None else [form.alpha])]
    image = np.empty((form.height, form.width, len(wanted)), _dtype(form).newbyteorder("="))
    down, across = (-(-side // block) for side, block in zip((form.height, form.width), form.block, strict=True))
    for place in range(len(wanted) if form.planar else 1):
        for row in range(down):
            for column in range(across):
                number = ((wanted[place] if form.planar else 0) * down + row) * across + column
                top, left = row * form.block[0], column * form.block[1]
                height = form.block[0] if form.tiled else min(form.block[0], form.height - top)
                samples = _block(file, form, number, height)
                target = image[top : top + height, left : left + form.block[1]]
                part = samples[: target.shape[0], : target.shape[1]]
                if form.planar:
                    target[..., place] = part[..., 0]
                else:
                    target[...] = part[..., wanted]
    return image


def _dtype(form: Layout) -> np.dtype:
    width = next(width for width in (8, 16, 32, 64) if form.bits <= width)
    return np.dtype(f"{form.order}{form.kind}{width // 8}")


def _block(file: BinaryIO, form: Layout, number: int, height: int) -> np.ndarray:
    """One strip or tile: `[height, block width, samples stored in it]`."""
    samples = 1 if form.planar else form.samples
    across = form.block[1] * samples
    length = -(-across * form.bits // 8)
    file.seek(int(form.offsets[number]))
    content = file.read(min(int(form.counts[number]), 2 * height * length + 65_536))
    if form.reverse:
        content = content.translate(_REVERSED)
    raw = _decompressed(content, form.compression, height, length)
    if len(raw) < height * length:
        raise ImageError(f"damaged or truncated (strip or tile {number} holds {len(raw):,} of {height * length:,} bytes)")
    rows = np.frombuffer(raw, np.uint8, height * length).reshape(height, length)
    if form.bits in (8, 16, 32, 64):
        values = _unpredicted(rows, form, samples)
    elif form.predictor == 1:
        values = np.concatenate(list(_unpacked(rows, form.bits, across)))
    else:
        raise ImageError(f"a TIFF of {form.bits} bits with the predictor {form.predictor} can't be read")
    return values.reshape(height, form.block[1], samples)


def _decompressed(content: bytes, compression: int, height: int, length: int) -> bytes:
    if compression == 1:
        return content
    if compression in _DEFLATE:
        return zlib.decompressobj().decompress(content, height * length)
    if compression not in _PILLOW_DECODES:
        raise ImageError(f"a TIFF of this depth with the compression {compression} can't be read")
    # The same bytes as an 8-bit TIFF of one strip: libtiff undoes the compression, whatever the samples are.
    entries = ((256, length), (257, height), (258, 8), (259, compression), (262, 1), (273, 122), (277, 1), (278, height))
    fields = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*entries, (279, len(content)))]
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + b"".join(fields) + bytes(4)
    with Image.open(BytesIO(head + content), formats=("TIFF",)) as image:
        return image.tobytes()


def _unpredicted(rows: np.ndarray, form: Layout, samples: int) -> np.ndarray:
    """Rows of whole bytes as samples, with the differences of predictor 2 or 3 summed up: `[rows, samples of a row]`."""
    width = form.bits // 8
    if form.predictor == 1:
        return rows.view(_dtype(form))
    height = rows.shape[0]
    if form.predictor == 2:
        unsigned = np.dtype(f"{form.order}u{width}")
        steps = rows.view(unsigned).astype(unsigned.newbyteorder("=")).reshape(height, -1, samples)
        values = np.cumsum(steps, axis=1, dtype=steps.dtype).reshape(height, -1)
        return values.view(_dtype(form).newbyteorder("="))
    if form.predictor == 3 and form.kind == "f":
        # Differences of bytes, `samples` apart; then all first bytes of the row, all second ones and so on.
        summed = np.cumsum(rows.reshape(height, -1, samples), axis=1, dtype=np.uint8).reshape(height, width, -1)
        return np.ascontiguousarray(summed.transpose(0, 2, 1)).reshape(height, -1).view(f">f{width}")
    raise ImageError(f"a TIFF with the predictor {form.predictor} can't be read")


def _unpacked(rows: np.ndarray, bits: int, across: int) -> Iterator[np.ndarray]:
    """Samples that do not fill bytes, first bit highest, each row from a new byte."""
    width = 8 if bits < 8 else 16 if bits < 16 else 32
    step = max(1, _BLOCK_SAMPLES // across)
    for start in range(0, len(rows), step):
        singles = np.unpackbits(rows[start : start + step], axis=1)[:, : across * bits].reshape(-1, across, bits)
        padded = np.zeros((*singles.shape[:2], width), np.uint8)
        padded[..., width - bits :] = singles
        yield np.packbits(padded, axis=-1).view(f">u{width // 8}")[..., 0]
