"""Which files are opened, with which decoder, and what the others are told."""

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from gem_fast.images import EXTENSIONS, ImageError, load_image, read_image, sniff
from gem_fast.images.formats import FORMATS as TABLE
from gem_fast.images.limits import jxl_size
from tests.images.image_formats import FORMATS, OPTIONAL, pixels

STARTS = {
    "DDS": b"DDS \x7c\0\0\0",
    "BLP": b"BLP2\1\0\0\0",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "PSD": b"8BPS\0\1",
    "ICO": b"\0\0\1\0\1\0",
    "CUR": b"\0\0\2\0\1\0",
    "PDF": b"%PDF-1.7",
    "PNM": b"P6 2 2 255\n",
    "QOI": b"qoif",
    "Canon raw": b"II*\0\x10\0\0\0CR\2\0",
    "Panasonic raw": b"IIU\0\x18\0\0\0",
    "Olympus raw": b"IIRO\x08\0\0\0",
    "Fujifilm raw": b"FUJIFILMCCD-RAW 0201",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "MP4 or QuickTime": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42",
}


@pytest.mark.parametrize("name", STARTS)
def test_formats_that_are_not_read_are_refused_by_name(tmp_path, name):
    path = tmp_path / "photo.jpg"
    path.write_bytes(STARTS[name] + bytes(300))
    with pytest.raises(ImageError, match=rf"photo\.jpg: in the format {name}, which is not read; read are JPEG, PNG, "):
        read_image(path)
    assert sniff(path) == name


def test_no_program_is_started_for_an_eps_that_is_called_jpg(tmp_path, picture, monkeypatch):
    path = tmp_path / "photo.jpg"
    picture().save(path, "EPS")

    def started(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "check_call", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    for source in (path, Image.open(path)):
        with pytest.raises(ImageError, match=r"photo\.jpg: in the format EPS"):
            load_image(source)


def test_every_format_is_found_in_folders_and_told_by_its_first_bytes(tmp_path, picture):
    assert {ending for each in TABLE for ending in each.endings} == EXTENSIONS
    assert {".jfif", ".jpe", ".avif", ".heic", ".jp2", ".mpo", ".jxl"} < EXTENSIONS
    names = {ending: each.name for each in TABLE for ending in each.endings}
    for ending in FORMATS:
        path = tmp_path / f"photo.{ending}"
        picture().save(path)
        bare = tmp_path / f"photo-{ending}"
        path.rename(bare)
        assert sniff(bare) == names[f".{ending}"]
        assert read_image(bare).size == (64, 48)


def test_sniff_gives_none_for_what_cannot_be_told(tmp_path):
    (tmp_path / "text").write_text("BMW and GIF are words, and so is PNG")
    (tmp_path / "empty").touch()
    (tmp_path / "tga").write_bytes(b"\0\0\2" + bytes(9) + struct.pack("<HHBB", 8, 8, 24, 0))  # is no cursor
    for name in ("text", "empty", "tga", "missing"):
        assert sniff(tmp_path / name) is None


def test_mpo_is_its_first_photo(tmp_path):
    path = tmp_path / "stereo.mpo"
    left, right = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    left.save(path, save_all=True, append_images=[right])
    assert np.abs(pixels(read_image(path)) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize(("ending", "module"), [("heic", "pillow_heif"), ("jxl", "pillow_jxl")])
def test_a_missing_plugin_is_named_with_its_extra(tmp_path, ending, module, monkeypatch):
    path = tmp_path / f"photo.{ending}"
    start = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" if ending == "heic" else b"\xff\x0a"
    path.write_bytes(start + bytes(100))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageError, match=rf'pip install "gem_fast\[{ending}\]"'):
        read_image(path)


def test_avif_without_its_library_names_pillow(tmp_path, monkeypatch):
    path = tmp_path / "photo.avif"
    path.write_bytes(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(100))
    monkeypatch.setitem(sys.modules, "PIL.AvifImagePlugin", None)
    with pytest.raises(ImageError, match=r"photo\.avif: in the format AVIF, which needs a Pillow .* with libavif"):
        read_image(path)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_broken_avif_is_an_image_error(tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(200))
    with pytest.raises(ImageError, match=r"broken\.jpg: damaged or truncated"):
        read_image(path)


def test_what_is_no_file_is_refused_and_not_opened(tmp_path):
    fifo, link = tmp_path / "fifo.png", tmp_path / "link.png"
    os.mkfifo(fifo)
    link.symlink_to(fifo)
    cases = {fifo: "FIFO", link: "FIFO", Path("/dev/zero"): "device", tmp_path: "folder"}
    with socket.socket(socket.AF_UNIX) as listener:
        here = tmp_path / "s"
        listener.bind(os.path.relpath(here))
        cases[here] = "socket"
        for path, kind in cases.items():
            with pytest.raises(ImageError, match=f"^{path}: a {kind}"):
                read_image(path)
            assert sniff(path) is None


@pytest.mark.parametrize("name", ["line\nbreak.png", "\udcff.png", "ünï çödé.png", "-x.png"], ids=ascii)
def test_odd_names_and_links(tmp_path, picture, name):
    path, link = tmp_path / name, tmp_path / "link"
    picture().save(path, "PNG")
    link.symlink_to(path)
    for each in (path, link, str(path)):
        assert np.array_equal(pixels(read_image(each)), pixels(picture()))
    path.write_bytes(b"nothing")
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: not an image")


@pytest.mark.parametrize(
    "error",
    [RuntimeError, NotImplementedError, IndexError, RecursionError, MemoryError, KeyError, UserWarning, AssertionError],
)
def test_whatever_a_decoder_raises_names_the_file_once(tmp_path, picture, monkeypatch, error):
    path = tmp_path / "hurt.png"
    picture().save(path)

    def failing(self):
        raise error("it\nbroke")

    monkeypatch.setattr(Image.Image, "load", failing)
    with pytest.raises(ImageError, match=r"hurt\.png: damaged or truncated \(") as caught:
        read_image(path)
    assert str(caught.value).count("hurt.png") == 1
    assert "\n" not in str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Unsupported BMP pixel depth (2)", r"of a kind that is not read \(Unsupported BMP pixel depth \(2\)\)"),
        ("Failed to decode image: Not implemented", r"of a kind that is not read \(Failed .*\)"),
        ("Generic Error. Please build `lib` from source.", r"damaged or truncated \(Generic Error\.\)"),
        ("Decompressed data too large for MAX", r"a PNG with more text, or a larger profile, than is read \(.*\)"),
    ],
    ids=["unsupported", "not-implemented", "advice", "text"],
)
def test_what_a_decoder_says_is_no_damage_where_it_is_none(tmp_path, picture, monkeypatch, said, told):
    path = tmp_path / "odd.png"
    picture().save(path)

    def failing(self):
        raise ValueError(said)

    monkeypatch.setattr(Image.Image, "load", failing)
    with pytest.raises(ImageError, match=rf"odd\.png: {told}$"):
        read_image(path)


def test_an_interrupt_is_no_damaged_image(tmp_path, picture, monkeypatch):
    path = tmp_path / "fine.png"
    picture().save(path)

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_image(path)


@pytest.mark.skipif(not OPTIONAL["jxl"], reason="needs pillow-jxl-plugin")
@pytest.mark.parametrize("size", [(1, 1), (8, 16), (64, 64), (300, 200), (255, 257), (8_200, 3), (640, 360)])
def test_the_size_of_jpeg_xl_before_it_is_decoded(tmp_path, size):
    path = tmp_path / "photo.jxl"
    Image.new("RGB", size).save(path)
    content = path.read_bytes()
    assert jxl_size(content[content.index(b"\xff\x0a") :]) == size


def test_metadata_that_name_themselves_are_no_obstacle(tmp_path, picture):
    """An EXIF directory whose every tag is the whole directory, and the next directory itself."""
    tags = 3_000
    entries = b"".join(struct.pack("<HHII", 0x8000 + tag, 7, 12 * tags, 8) for tag in range(tags))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries + struct.pack("<I", 8)
    for ending in ("png", "webp"):
        path = tmp_path / f"odd.{ending}"
        picture().save(path, exif=exif)
        assert read_image(path).size == (64, 48)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_orientation_in_xmp(tmp_path, picture, ending):
    path = tmp_path / f"turned.{ending}"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    picture().save(path, xmp=xmp)
    if ending == "png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        picture().save(path, pnginfo=info)
    assert read_image(path).size == (48, 64)


def test_a_brand_is_found_among_all_that_are_compatible(tmp_path):
    for place in range(2):
        brands = [b"miaf", b"miaf"]
        brands[place] = b"avif"
        (tmp_path / "photo").write_bytes(b"\0\0\0\x18ftypnone\0\0\0\0" + b"".join(brands) + bytes(9))
        assert sniff(tmp_path / "photo") == "AVIF"


@pytest.mark.skipif(not OPTIONAL["avif"], reason="this Pillow has no AVIF")
def test_orientation_in_xmp_is_not_to_count_in_avif(tmp_path, picture):
    path = tmp_path / "turned.avif"
    for exif, size in ((1, (64, 48)), (6, (48, 64))):  # which Pillow writes as what AVIF itself says
        tags = Image.Exif()
        tags[0x0112] = exif
        picture().save(path, exif=tags, xmp=b'<rdf:Description tiff:Orientation="3"/>')
        image = read_image(path)
        assert image.size == size
        upright = image if exif == 1 else image.transpose(Image.Transpose.ROTATE_90)
        assert np.abs(pixels(upright) - pixels(picture())).mean() < 8
    picture().save(path, xmp=b'<rdf:Description tiff:Orientation="6"/>')
    for source in (path, Image.open(path)):
        assert load_image(source).size == (64, 48)
