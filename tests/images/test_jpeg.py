"""JPEG by its own decoder: the pixels of Pillow's, bit for bit, whatever the file says."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from gem_fast.images import ImageError, jpeg, load_pixels, read_image
from gem_fast.images.orientation import ORIENTATION_TAG

SIZES = [(48, 64), (37, 53), (1, 1), (8, 200)]


def by_pillow(path, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr("gem_fast.images.reading.jpeg_pixels", lambda *_: None)
        return np.asarray(read_image(path))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_are_pillows(tmp_path, picture, monkeypatch, size, subsampling, progressive):
    path = tmp_path / "a.jpg"
    picture(*size).save(path, quality=83, subsampling=subsampling, progressive=progressive, optimize=True)
    read = load_pixels(path)
    assert read.shape == (*size, 3)
    assert np.array_equal(read, by_pillow(path, monkeypatch))
    assert np.array_equal(read, np.asarray(read_image(path)))


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_holds(tmp_path, picture, monkeypatch, turn):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = turn
    picture(37, 53).save(tmp_path / "a.jpg", exif=exif)
    read = load_pixels(tmp_path / "a.jpg")
    assert read.shape == ((37, 53, 3) if turn < 5 else (53, 37, 3))
    assert np.array_equal(read, by_pillow(tmp_path / "a.jpg", monkeypatch))


def test_a_colour_profile_holds(tmp_path, picture, monkeypatch):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    picture(37, 53).save(tmp_path / "srgb.jpg", icc_profile=lab.tobytes())
    broken = bytearray(lab.tobytes())
    broken[200:260] = bytes(60)
    picture(37, 53).save(tmp_path / "broken.jpg", icc_profile=bytes(broken))
    for name in ("srgb.jpg", "broken.jpg"):
        assert np.array_equal(load_pixels(tmp_path / name), by_pillow(tmp_path / name, monkeypatch))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_what_is_no_colour_photo_goes_to_pillow(tmp_path, picture, monkeypatch, mode):
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", None)
    picture(37, 53).convert(mode).save(tmp_path / "a.jpg")
    assert np.abs(load_pixels(tmp_path / "a.jpg").astype(int) - np.asarray(picture(37, 53))).max() < 256


def test_a_size_that_the_decoders_read_differently_goes_to_pillow(tmp_path, picture, monkeypatch):
    picture(37, 53).save(tmp_path / "a.jpg")
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg_header", lambda _: (10_000, 10_000, "YCbCr", "420"))
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", None)
    assert load_pixels(tmp_path / "a.jpg").shape == (37, 53, 3)


def test_what_is_damaged_is_told_by_pillow(tmp_path, picture):
    whole = io.BytesIO()
    picture(200, 200).save(whole, "JPEG")
    (tmp_path / "a.jpg").write_bytes(whole.getvalue()[:-900])
    with pytest.raises(ImageError, match=r"a\.jpg: damaged or truncated"):
        load_pixels(tmp_path / "a.jpg")
