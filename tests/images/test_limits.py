"""What is refused before a decoder starts, wherever in the file the reason stands."""

import struct

import numpy as np
import pytest
from PIL import Image

from gem_fast.images import ImageError, read_image
from tests.images.image_formats import box

JXL_HEAD = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")


def pieces(codestream, first):
    """A codestream in two boxes, the first of so many bytes."""
    return box(b"jxlp", b"\0\0\0\0" + codestream[:first]) + box(b"jxlp", b"\x80\0\0\1" + codestream[first:])


def long_box(kind, content):
    return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content


WRAPPED = {
    "bare": lambda stream: stream,
    "box": lambda stream: JXL_HEAD + box(b"jxlc", stream),
    "box-to-the-end": lambda stream: JXL_HEAD + struct.pack(">I4s", 0, b"jxlc") + stream,
    "long-box": lambda stream: JXL_HEAD + long_box(b"jxlc", stream),
    "far": lambda stream: JXL_HEAD + box(b"free", bytes(70_000)) + box(b"jxlc", stream),
    "behind-a-long-box": lambda stream: JXL_HEAD + long_box(b"free", bytes(9)) + box(b"jxlc", stream),
    "pieces": lambda stream: JXL_HEAD + pieces(stream, 3),
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_a_giant_jpeg_xl_is_refused_wherever_its_codestream_lies(tmp_path, wrapped):
    pytest.importorskip("pillow_jxl")
    path = tmp_path / "giant.jxl"
    # not small, 18-bit height - 1, ratio 1:1
    path.write_bytes(wrapped(b"\xff\x0a" + (0 | 2 << 1 | 99_999 << 3 | 1 << 21).to_bytes(4, "little") + bytes(20)))
    with pytest.raises(ImageError, match=r"giant\.jxl: 100000×100000 is more than"):
        read_image(path)


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_a_jpeg_xl_is_read_wherever_its_codestream_lies(tmp_path, wrapped):
    pytest.importorskip("pillow_jxl")
    path = tmp_path / "photo.jxl"
    Image.new("RGB", (24, 16), (200, 100, 50)).save(path, lossless=True)
    stream = path.read_bytes()
    assert stream.startswith(b"\xff\x0a")
    path.write_bytes(wrapped(stream))
    assert (np.asarray(read_image(path)) == (200, 100, 50)).all()


@pytest.mark.parametrize(
    "content",
    [
        JXL_HEAD,
        JXL_HEAD + box(b"free", bytes(70_000)),
        JXL_HEAD + struct.pack(">I4s", 4, b"free"),
        JXL_HEAD + struct.pack(">I4sQ", 1, b"free", 8),
        JXL_HEAD + struct.pack(">I4s", 0, b"free") + box(b"jxlc", b"\xff\x0a" + bytes(20)),
        JXL_HEAD + box(b"free", b"") * 2_000 + box(b"jxlc", b"\xff\x0a" + bytes(20)),
        JXL_HEAD + box(b"jxlc", b"\0\x0a" + bytes(20)),
    ],
    ids=["none", "other-box", "short", "short-long", "box-to-the-end", "many-boxes", "no-start"],
)
def test_a_jpeg_xl_without_a_codestream_is_refused_unseen(tmp_path, content, monkeypatch):
    plugin = pytest.importorskip("pillow_jxl")
    monkeypatch.setattr(plugin.JpegXLImagePlugin, "Decoder", None)
    path = tmp_path / "odd.jxl"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"odd\.jxl: damaged or truncated \((it has no codestream|.* box)"):
        read_image(path)
