"""Formats that are read, an image's values, and small TIFF files, for the tests of reading."""

import struct
import zlib
from importlib.util import find_spec

import numpy as np
from PIL import features

if find_spec("pillow_heif"):
    import pillow_heif

    pillow_heif.register_heif_opener()
if find_spec("pillow_jxl"):
    import pillow_jxl  # noqa: F401 - registers itself

# The optional ones wherever they can be read; the development extra brings them all.
OPTIONAL = {"avif": features.check("avif"), "heic": find_spec("pillow_heif"), "jxl": find_spec("pillow_jxl")}
LOSSLESS = ("png", "tiff", "bmp", "jp2")
FORMATS = (*LOSSLESS, "jpg", "webp", "gif", *(ending for ending, there in OPTIONAL.items() if there))


def pixels(image):
    return np.asarray(image).astype(int)


def write_tiff(
    path, samples, *, photometric=1, bits=None, order="<", extra=(), planar=False, tile=None, rows=None, content=None,
    tags=None,
):  # fmt: skip
    """A TIFF of `[H, W, C]` samples, uncompressed; `bits` packs integers.

    `content` is stored in place of the only strip's bytes, and `tags` (number -> type and values) beside or in place of
    what is written.
    """
    height, width, channels = samples.shape
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    depth = bits or samples.dtype.itemsize * 8
    planes = [samples[..., [channel]] for channel in range(channels)] if planar else [samples]
    block_height, block_width = tile or (rows or height, width)
    blocks = []
    for plane in planes:
        for top in range(0, height, block_height):
            for left in range(0, width, block_width):
                block = plane[top : top + block_height, left : left + block_width]
                if tile:
                    block = np.pad(block, [(0, tile[0] - block.shape[0]), (0, tile[1] - block.shape[1]), (0, 0)])
                blocks.append(packed(block, depth, order))
    blocks = blocks if content is None else [content]
    entries = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [depth] * channels), 259: ("H", [1]),
        262: ("H", [photometric]), 277: ("H", [channels]), 284: ("H", [2 if planar else 1]),
        339: ("H", [kind] * channels),
    }  # fmt: skip
    if extra:
        entries[338] = ("H", list(extra))
    if tile:
        entries |= {322: ("I", [block_width]), 323: ("I", [block_height])}
    else:
        entries[278] = ("I", [block_height])
    offsets = np.cumsum([8, *map(len, blocks)]).tolist()
    entries[324 if tile else 273] = ("I", offsets[:-1])
    entries[325 if tile else 279] = ("I", [len(block) for block in blocks])
    entries |= tags or {}
    table, beyond, place = b"", b"", offsets[-1] + 2 + 12 * len(entries) + 4
    for tag, (code, values) in sorted(entries.items()):
        content = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(content) > 4:
            content, beyond = struct.pack(f"{order}I", place + len(beyond)), beyond + content
        table += struct.pack(f"{order}HHI", tag, {"B": 7, "H": 3, "I": 4}[code], len(values)) + content.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", offsets[-1])
    directory = struct.pack(f"{order}H", len(entries)) + table + bytes(4)
    path.write_bytes(head + b"".join(blocks) + directory + beyond)


def packed(block, depth, order):
    """Samples as a TIFF's bytes: whole bytes in the file's order, else bit by bit with rows from a new byte."""
    if depth == block.dtype.itemsize * 8:
        return block.astype(block.dtype.newbyteorder(order)).tobytes()
    if depth == 24:
        return (
            block.astype(f"{order}u4")
            .view(np.uint8)
            .reshape(-1, 4)[:, slice(3) if order == "<" else slice(1, 4)]
            .tobytes()
        )
    rows = block.reshape(block.shape[0], -1).astype(np.uint64)
    bits = (rows[..., None] >> np.arange(depth - 1, -1, -1, dtype=np.uint64)) & np.uint64(1)
    return np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def write_png(path, width, bits, colour_type, lines, key=None):
    """A PNG of these lines' bytes, with that transparent value."""
    header = struct.pack(">IIBBBBB", width, len(lines), bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines))), (b"IEND", b"")]
    if key is not None:
        chunks.insert(1, (b"tRNS", struct.pack(f">{len(key)}H", *key)))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
            for kind, content in chunks
        )
    )


def box(kind, content):
    """A box of a JPEG 2000 or JPEG XL file."""
    return struct.pack(">I4s", 8 + len(content), kind) + content
