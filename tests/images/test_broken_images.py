"""Images that can't be read: each is an error that names the file and the reason."""

import contextlib
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from gem_fast.images import MAX_PIXELS, ImageError, load_image, read_image
from tests.images.image_formats import FORMATS


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_500, 60_000], ids=["above-our-limit", "above-pillows-limit"])
def test_giant_is_refused_before_it_is_decoded(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(ImageError, match=rf"bomb\.png.*more than {MAX_PIXELS:,} pixels"):
        read_image(path)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_truncated_names_the_file(tmp_path, picture, ending, kept):
    path = tmp_path / f"cut.{ending}"
    picture(64, 96).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    try:
        message = f"{read_image(path).size}"  # a format may be able to read what is there
    except ImageError as error:
        message = str(error)
    assert message == "(96, 64)" or re.match(
        rf"{re.escape(str(path))}: (damaged or truncated \(.+\)|not an image)", message
    )


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
def test_truncated_is_an_error(tmp_path, picture, ending):
    path = tmp_path / f"cut.{ending}"
    picture(64, 96).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"cut\.\w+: damaged or truncated"):
        read_image(path)
    if ending != "webp":  # those are decoded by Image.open already
        with pytest.raises(ImageError, match=r"cut\.\w+: damaged or truncated"):
            load_image(Image.open(path))


@pytest.mark.parametrize("ending", FORMATS)
def test_random_damage_is_read_or_reported(tmp_path, picture, ending):
    """Whatever a decoder raises becomes an ImageError that names the file."""
    path = tmp_path / f"hurt.{ending}"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(16, 24).save(path, **({} if ending in ("bmp", "gif") else {"exif": exif.tobytes()}))
    whole, chance = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        hurt = bytearray(whole)
        for place in chance.integers(0, min(len(hurt), 300), size=4):
            hurt[place] = chance.integers(256)
        path.write_bytes(hurt)
        with warnings.catch_warnings(), contextlib.suppress(ImageError):
            warnings.simplefilter("ignore")  # Pillow's own about odd metadata
            assert read_image(path).mode == "RGB"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_text("hello, I am text"), "not an image"),
        (lambda path: path.write_bytes(bytes(range(256)) * 8), "not an image"),
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: None, "no such file"),
    ],
    ids=["empty", "text", "binary", "folder", "missing"],
)
def test_unusable_file_names_itself_and_the_reason(tmp_path, make, reason):
    path = tmp_path / "thing.png"
    make(path)
    with pytest.raises(ImageError, match=rf"thing\.png.*{reason}"):
        load_image(str(path))


def test_no_permission(tmp_path, picture, monkeypatch):
    path = tmp_path / "locked.png"
    picture().save(path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)  # root reads everything, so chmod would not do
    with pytest.raises(ImageError, match=r"locked\.png: no permission"):
        read_image(path)


def test_errors_are_value_errors():
    assert issubclass(ImageError, ValueError)
