"""JPEG by its own decoder: the pixels of Pillow's, bit for bit, whatever the file says; and what Pillow reads over."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from gem_fast.images import ImageError, decode_pixels, jpeg, load_pixels, read_image
from gem_fast.images.orientation import ORIENTATION_TAG
from tests.images.test_colour import DISPLAY_P3, SRGB_CURVE, profile

SIZES = [(48, 64), (37, 53), (1, 1), (8, 200)]


def by_pillow(path, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr("gem_fast.images.reading.jpeg_samples", lambda *_: None)
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
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    broken = srgb[:200] + bytes(60) + srgb[260:]
    wide = profile(b"RGB ", SRGB_CURVE, DISPLAY_P3)
    path = tmp_path / "a.jpg"
    read = []
    for content in (srgb, broken, wide):
        picture(37, 53).save(path, icc_profile=content)
        read.append(load_pixels(path))
        assert np.array_equal(read[-1], by_pillow(path, monkeypatch))
    assert np.array_equal(read[0], read[1])
    assert not np.array_equal(read[0], read[2])


@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize("space", ["L", "CMYK"])
def test_grey_and_inks_are_pillows(tmp_path, picture, monkeypatch, space, turn):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = turn
    inks = profile(b"CMYK" if space == "CMYK" else b"GRAY", 1.0)
    for content in (None, inks):
        picture(37, 53).convert(space).save(tmp_path / "a.jpg", icc_profile=content, exif=exif)
        assert np.array_equal(load_pixels(tmp_path / "a.jpg"), by_pillow(tmp_path / "a.jpg", monkeypatch))


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


def saved(picture, mode="RGB", **options):
    whole = io.BytesIO()
    picture(200, 200).convert(mode).save(whole, "JPEG", **options)
    return whole.getvalue()


STRAY = b"\0\xff\0"  # bytes between two segments


def stray(whole, before):
    return whole.replace(before, STRAY + before, 1)


DAMAGED = {
    "zeros": lambda whole: whole[: len(whole) // 2] + bytes(500) + whole[len(whole) // 2 + 500 :],
    "missing": lambda whole: whole[: len(whole) // 2] + whole[len(whole) // 2 + 500 :],
    "ones": lambda whole: whole[: len(whole) // 2] + b"\xff\0" * 50 + whole[len(whole) // 2 + 100 :],
    "stray-and-missing": lambda whole: stray(whole[: len(whole) // 2] + whole[len(whole) // 2 + 500 :], b"\xff\xdb"),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"progressive": True}),
        ("RGB", {"restart_marker_rows": 1}),
        ("RGB", {"icc_profile": profile(b"RGB ", SRGB_CURVE, DISPLAY_P3)}),
        ("L", {}),
        ("CMYK", {}),
    ],
    ids=["plain", "progressive", "restarts", "profile", "grey", "inks"],
)
def test_damage_that_pillow_reads_over_is_told(tmp_path, picture, damaged, mode, options):
    (tmp_path / "a.jpg").write_bytes(damaged(saved(picture, mode, **options)))
    with pytest.raises(ImageError, match=r"a\.jpg: damaged or truncated \(Corrupt JPEG data"):
        load_pixels(tmp_path / "a.jpg")


HARMLESS = {
    "padded": lambda whole: whole[:-2] + bytes(2) + whole[-2:],
    "version": lambda whole: whole.replace(b"JFIF\0\1", b"JFIF\0\7"),
    "profile": lambda whole: whole[:2] + b"\xff\xe2\0\x12ICC_PROFILE\0\5\1xy" + whole[2:],
    "appended": lambda whole: whole + bytes(900),
    "stray-before-tables": lambda whole: stray(whole, b"\xff\xdb"),
    "stray-before-frame": lambda whole: stray(whole, b"\xff\xc0"),
    "stray-before-scan": lambda whole: stray(stray(whole, b"\xff\xc4"), b"\xff\xda"),
}


@pytest.mark.parametrize("changed", HARMLESS.values(), ids=HARMLESS)
def test_what_changes_no_pixel_is_read(tmp_path, picture, changed):
    whole = saved(picture)
    assert np.array_equal(decode_pixels(changed(whole), "a.jpg"), decode_pixels(whole, "a.jpg"))
