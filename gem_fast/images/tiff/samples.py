"""A TIFF file's samples from its strips and tiles: decompressed, their differences summed up, their bits unpacked."""

import struct
import zlib
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from ...errors import ImageError
from .layout import COMPRESSIONS, Layout

_UNPACKED_AT_ONCE = 1 << 22  # samples, each a byte a bit while it is unpacked
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

_DIRECTORY = 8  # where that of a file that is made here starts


def read_samples(file: BinaryIO, form: Layout) -> np.ndarray:
    """The colours and, if there is one, alpha: `[H, W, C]` in the machine's byte order.

    Raises:
        ImageError: the compression can't be read, or a strip or tile is missing or too short.
    """
    blocks, wanted = form.blocks, [*range(form.colours), *([] if form.alpha is None else [form.alpha])]
    image = np.empty((blocks.height, blocks.width, len(wanted)), form.dtype.newbyteorder("="))
    (down, across), (rows, columns) = blocks.grid, blocks.size
    for place in range(len(wanted) if blocks.planar else 1):
        for row in range(down):
            for column in range(across):
                number = ((wanted[place] if blocks.planar else 0) * down + row) * across + column
                top, left = row * rows, column * columns
                height = rows if blocks.tiled else min(rows, blocks.height - top)
                samples = _block(file, form, number, height)
                target = image[top : top + height, left : left + columns]
                part = samples[: target.shape[0], : target.shape[1]]
                if blocks.planar:
                    target[..., place] = part[..., 0]
                else:
                    target[...] = part[..., wanted]
    return image


def _block(file: BinaryIO, form: Layout, number: int, height: int) -> np.ndarray:
    """One strip or tile: `[height, block width, samples stored in it]`."""
    columns, samples = form.blocks.size[1], 1 if form.blocks.planar else form.blocks.samples
    across = columns * samples
    length = -(-across * form.bits // 8)
    file.seek(int(form.blocks.offsets[number]))
    content = file.read(min(int(form.counts[number]), 2 * height * length + 65_536))
    if form.reverse:
        content = content.translate(_REVERSED)
    raw = _decompressed(content, form.compression, height, length)
    if len(raw) < height * length:
        raise ImageError(
            f"damaged or truncated (strip or tile {number} holds {len(raw):,} of {height * length:,} bytes)"
        )
    rows = np.frombuffer(raw, np.uint8, height * length).reshape(height, length)
    if form.bits == 24 and form.predictor == 1:
        values = _triples(rows, form.order)
    elif form.bits in (8, 16, 32, 64):
        values = _unpredicted(rows, form, samples)
    elif form.predictor == 1:
        values = np.concatenate(list(_unpacked(rows, form.bits, across)))
    else:
        raise ImageError(f"a TIFF of {form.bits} bits with the predictor {form.predictor} can't be read")
    return values.reshape(height, columns, samples)


def _decompressed(content: bytes, compression: int, height: int, length: int) -> bytes:
    if compression == 1:
        return content
    if COMPRESSIONS[compression] == "Deflate":
        return zlib.decompressobj().decompress(content, height * length)
    # libtiff undoes the compression, whatever the samples are.
    tiff = _of_one_strip(content, compression, height, length)
    return Image.frombytes("L", (length, height), tiff, "libtiff", libtiff_arguments("L", _DIRECTORY)).tobytes()


def _of_one_strip(content: bytes, compression: int, height: int, length: int) -> bytes:
    """Compressed bytes as an 8-bit TIFF."""
    entries = (
        (256, length),
        (257, height),
        (258, 8),
        (259, compression),
        (262, 1),
        (273, 122),
        (277, 1),
        (278, height),
    )
    fields = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*entries, (279, len(content)))]
    return struct.pack("<2sHIH", b"II", 42, _DIRECTORY, len(fields)) + b"".join(fields) + bytes(4) + content


def libtiff_arguments(raw_mode: str, directory: int) -> tuple:
    """Those of Pillow's decoder for a directory that starts there, as this version of Pillow has them."""
    return raw_mode, *_between(), directory


@cache
def _between() -> tuple:
    arguments = TiffImagePlugin.TiffImageFile(BytesIO(_of_one_strip(b"", 5, 1, 1))).tile[0].args
    assert isinstance(arguments, tuple)
    return arguments[1:-1]


def _unpredicted(rows: np.ndarray, form: Layout, samples: int) -> np.ndarray:
    """Rows of whole bytes as samples, the differences of predictor 2 or 3 summed up: `[rows, samples of a row]`."""
    width = form.bits // 8
    if form.predictor == 1:
        return rows.view(form.dtype)
    height = rows.shape[0]
    if form.predictor == 2:
        unsigned = np.dtype(f"{form.order}u{width}")
        steps = rows.view(unsigned).astype(unsigned.newbyteorder("=")).reshape(height, -1, samples)
        values = np.cumsum(steps, axis=1, dtype=steps.dtype).reshape(height, -1)
        return values.view(form.dtype.newbyteorder("="))
    if form.predictor == 3 and form.kind == "f":
        # Differences of bytes, `samples` apart; then all first bytes of the row, all second ones and so on.
        summed = np.cumsum(rows.reshape(height, -1, samples), axis=1, dtype=np.uint8).reshape(height, width, -1)
        return np.ascontiguousarray(summed.transpose(0, 2, 1)).reshape(height, -1).view(f">f{width}")
    raise ImageError(f"a TIFF with the predictor {form.predictor} can't be read")


def _triples(rows: np.ndarray, order: str) -> np.ndarray:
    """Samples of three bytes, which are whole bytes in the file's order, unlike those that do not fill bytes."""
    beside = (0, 1) if order == "<" else (1, 0)
    return np.pad(rows.reshape(len(rows), -1, 3), [(0, 0), (0, 0), beside]).view(f"{order}u4")[..., 0]


def _unpacked(rows: np.ndarray, bits: int, across: int) -> Iterator[np.ndarray]:
    """Samples that do not fill bytes, first bit highest, each row from a new byte."""
    width = 8 if bits < 8 else 16 if bits < 16 else 32
    step = max(1, _UNPACKED_AT_ONCE // across)
    for start in range(0, len(rows), step):
        singles = np.unpackbits(rows[start : start + step], axis=1)[:, : across * bits].reshape(-1, across, bits)
        padded = np.zeros((*singles.shape[:2], width), np.uint8)
        padded[..., width - bits :] = singles
        yield np.packbits(padded, axis=-1).view(f">u{width // 8}")[..., 0]
