"""What is refused before a decoder starts, wherever in the file the reason stands."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from gem_fast.images import ImageError, limits, read_image
from gem_fast.images.limits import MAX_SCANS, check_file, jpeg_segments
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


@pytest.fixture
def progressive(tmp_path, picture):
    """A JPEG, and where its scans start."""
    path = tmp_path / "photo.jpg"
    picture().save(path, progressive=True)
    content = path.read_bytes()
    return path, content, [start - 4 for marker, start in jpeg_segments(content) if marker == 0xDA]


def test_the_scans_of_a_jpeg(progressive):
    path, content, starts = progressive
    assert len(starts) == 10
    path.write_bytes(content + b"\xff\xda" * 500)  # not within the image: what phones append
    assert read_image(path).size == (64, 48)


@pytest.mark.parametrize("before", [b"", b"\xff\x01", b"\xff\xd3", b"\xff", b"\xff\xe1\0\x04\xff\xd9"], ids=bytes.hex)
def test_a_jpeg_of_endless_scans_is_refused(progressive, before):
    """Whatever stands before each: markers of no length, fill, and the end of another image in metadata."""
    path, content, starts = progressive
    scan = before + content[starts[1] : starts[2]]
    path.write_bytes(content[: starts[2]] + scan * MAX_SCANS + content[starts[2] :])
    with pytest.raises(ImageError, match=r"photo\.jpg: a JPEG of more than 100 scans"):
        read_image(path)


@pytest.mark.parametrize(
    ("segment", "count"), [(b"\xff\xe1\0\x0aExif\0\0II", 101), (b"\xff\xfe\0\2", 10_000)], ids=["exif", "comment"]
)
def test_a_jpeg_of_endless_segments_is_refused(progressive, segment, count):
    path, content, _ = progressive
    path.write_bytes(content[:2] + segment * 90 + content[2:])
    assert read_image(path).size == (64, 48)
    path.write_bytes(content[:2] + segment * count + content[2:])
    with pytest.raises(ImageError, match=r"photo\.jpg: a JPEG of more than 100 EXIF segments, or 10,000 in all"):
        read_image(path)


@pytest.mark.parametrize(
    ("segment", "most"),
    [(b"\xff\xda\0\2", 100), (b"\xff\xe1\0\x08Exif\0\0", 100), (b"\xff\xfe\0\2", 10_000)],
    ids=["scan", "exif", "comment"],
)
def test_as_many_segments_as_are_allowed(segment, most):
    check_file(BytesIO(b"\xff\xd8" + segment * most + b"\xff\xd9"), "JPEG")
    with pytest.raises(ImageError, match="a JPEG of more than"):
        check_file(BytesIO(b"\xff\xd8" + segment * (most + 1) + b"\xff\xd9"), "JPEG")


def test_a_jpeg_larger_than_its_pixels_is_refused(progressive, monkeypatch):
    path, content, _ = progressive
    monkeypatch.setattr(limits, "MAX_JPEG", len(content) - 1)
    with pytest.raises(ImageError, match=r"photo\.jpg: a JPEG of more than [\d,]+ bytes"):
        read_image(path)
