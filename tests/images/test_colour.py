"""Embedded ICC profiles: colours come out in sRGB, and sRGB pixels untouched."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from gem_fast.images import colour, load_image, read_image
from tests.images.image_formats import pixels, write_png

# Primaries in XYZ under D50, as profiles hold them, columns red, green and blue.
DISPLAY_P3 = [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)]
ADOBE_RGB = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
SRGB = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)]
WHITE = (0.9642, 1.0, 0.8249)


def profile(space, curve, primaries=()):
    """A matrix or grey profile with that tone curve: a gamma, or five parameters of a curve with a linear start."""

    def number(value):
        return struct.pack(">i", round(value * 65_536))

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(map(number, values))

    kind, values = (0, [curve]) if isinstance(curve, float) else (3, curve)
    tone = b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(map(number, values))
    if space == b"CMYK":
        return assembled(b"prtr", b"CMYK", b"Lab ", {b"wtpt": xyz(WHITE), b"A2B0": ink_table()})
    tags = {b"wtpt": xyz(WHITE)}
    if space == b"GRAY":
        tags[b"kTRC"] = tone
    else:
        tags |= {name + b"XYZ": xyz(values) for name, values in zip((b"r", b"g", b"b"), primaries, strict=True)}
        tags |= {name + b"TRC": tone for name in (b"r", b"g", b"b")}
    return assembled(b"mntr", space, b"XYZ ", tags)


def assembled(kind, space, connection, tags):
    """A profile of these tags."""
    table, content, place = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag + struct.pack(">II", place + len(content), len(value))
        content += value.ljust(-(-len(value) // 4) * 4, b"\0")
    head = struct.pack(">I4sI4s4s4s", place + len(content), b"lcms", 0x04300000, kind, space, connection) + bytes(12)
    head += b"acsp" + bytes(28) + b"".join(struct.pack(">i", round(value * 65_536)) for value in WHITE)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


def ink_lab(cyan, magenta, yellow, black):
    """The colour of full or no ink in our press: CIELAB."""
    if black:
        return 0, 0, 0
    return 100 - 15 * (cyan + magenta + yellow), 30 * (magenta - cyan), 20 * (2 * yellow - cyan - magenta)


def ink_table():
    """A table from CMYK to CIELAB with two steps an ink, in 8 bits."""
    identity = bytes(range(256))
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    grid = bytes(round(v) for corner in corners for v in encoded_lab(ink_lab(*corner)))
    matrix = b"".join(struct.pack(">i", 65_536 * (place % 4 == 0)) for place in range(9))
    return b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + grid + identity * 3


def encoded_lab(lab):
    return lab[0] * 2.55, lab[1] + 128, lab[2] + 128


def lab_to_srgb(lab):
    y = (lab[0] + 16) / 116
    cubes = [y + lab[1] / 500, y, y - lab[2] / 200]
    xyz = [
        white * (f**3 if f > 6 / 29 else 3 * (6 / 29) ** 2 * (f - 4 / 29))
        for f, white in zip(cubes, WHITE, strict=True)
    ]
    return to_srgb_curve(np.array(xyz) @ np.linalg.inv(np.array(SRGB)))


def to_srgb_curve(light):
    light = np.clip(light, 0, 1)
    return np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light) * 255


SRGB_CURVE = [2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045]


def expected(encoded, curve, primaries):
    """By the definition: to light, to XYZ, to sRGB's light, encoded."""
    values = encoded / 255
    gamma, a, b, c, d = curve if isinstance(curve, list) else (curve, 1, 0, 1, 0)
    light = np.where(values >= d, (a * values + b) ** gamma, c * values)
    return to_srgb_curve(light @ np.array(primaries) @ np.linalg.inv(np.array(SRGB)))


@pytest.mark.parametrize(
    ("curve", "primaries"), [(SRGB_CURVE, DISPLAY_P3), (2.2, ADOBE_RGB)], ids=["display-p3", "adobe-rgb"]
)
@pytest.mark.parametrize("ending", ["png", "tiff", "webp"])
def test_wide_gamut_becomes_srgb(tmp_path, picture, ending, curve, primaries):
    path = tmp_path / f"phone.{ending}"
    options = {"lossless": True} if ending == "webp" else {}
    picture().save(path, icc_profile=profile(b"RGB ", curve, primaries), **options)
    wanted = expected(pixels(picture()), curve, primaries)
    assert np.abs(wanted - pixels(picture())).max() > 20
    for read in (read_image(path), load_image(Image.open(path))):
        assert np.abs(pixels(read) - wanted).max() <= 2


def write_bmp(path, image, kind, content, size=None):
    """A BMP with a fifth header, whose colour space is of a kind."""
    image.save(path)
    plain = path.read_bytes()
    rows, start = plain[54:], 14 + 124
    after = struct.pack("<III", 4, len(rows) + 124, len(content) if size is None else size)
    head = struct.pack("<I", 124) + plain[18:54] + bytes(16) + kind[::-1] + bytes(48) + after + bytes(4)
    place = struct.pack("<IHHI", start + len(rows) + len(content), 0, 0, start)
    path.write_bytes(b"BM" + place + head + rows + content)


def test_a_profile_in_a_bmp(tmp_path, picture):
    path, content = tmp_path / "wide.bmp", profile(b"RGB ", SRGB_CURVE, DISPLAY_P3)
    write_bmp(path, picture(), b"MBED", content)
    wanted = expected(pixels(picture()), SRGB_CURVE, DISPLAY_P3)
    for read in (read_image(path), load_image(Image.open(path))):
        assert np.abs(pixels(read) - wanted).max() <= 2


@pytest.mark.parametrize(("kind", "size"), [(b"LINK", None), (b"sRGB", None), (b"MBED", 2**32 - 1), (b"MBED", 200)])
def test_what_is_no_profile_in_a_bmp(tmp_path, picture, kind, size):
    """It is only named, or larger than one may be, or cut."""
    path = tmp_path / "plain.bmp"
    write_bmp(path, picture(), kind, profile(b"RGB ", SRGB_CURVE, DISPLAY_P3) + bytes(1 << 22), size)
    assert np.array_equal(pixels(read_image(path)), pixels(picture()))


def test_deep_tiff_with_a_profile(tmp_path):
    path = tmp_path / "deep.tiff"
    values = np.arange(0, 65_536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(path, icc_profile=profile(b"GRAY", 1.0))
    assert np.abs(pixels(read_image(path))[..., 0] - to_srgb_curve(values / 65_535)).max() <= 1


@pytest.mark.parametrize("made", ["lcms", "ours"])
def test_srgb_pixels_are_untouched(tmp_path, picture, made):
    path = tmp_path / "usual.png"
    theirs = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture().save(path, icc_profile=theirs if made == "lcms" else profile(b"RGB ", SRGB_CURVE, SRGB))
    assert np.array_equal(pixels(read_image(path)), pixels(picture()))


def test_alpha_and_profile(tmp_path, picture):
    path = tmp_path / "clear.png"
    image = picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))))
    image.save(path, icc_profile=profile(b"RGB ", SRGB_CURVE, DISPLAY_P3))
    colours = expected(pixels(picture()), SRGB_CURVE, DISPLAY_P3)
    alpha = pixels(image)[..., 3:] / 255
    assert np.abs(pixels(read_image(path)) - (colours * alpha + 255 * (1 - alpha))).max() <= 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_with_a_profile(tmp_path, dtype):
    path = tmp_path / "grey.png"
    values = np.arange(256, dtype=dtype).reshape(16, 16)
    Image.fromarray(values * dtype(np.iinfo(dtype).max // 255)).save(path, icc_profile=profile(b"GRAY", 1.0))
    assert np.abs(pixels(read_image(path)) - to_srgb_curve(values / 255)[..., None]).max() <= 1


def test_a_transparent_colour_of_16_bits_and_a_profile(tmp_path):
    content, path = profile(b"RGB ", SRGB_CURVE, DISPLAY_P3), tmp_path / "key.png"
    write_png(path, 1, 16, 2, [np.array([20_000, 40_000, 10_000], ">u2").tobytes()], [1, 2, 3])
    head, rest = path.read_bytes()[:33], path.read_bytes()[33:]
    chunk = b"iCCP" + b"p\0\0" + zlib.compress(content)
    path.write_bytes(head + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + rest)
    assert np.abs(pixels(read_image(path)) - expected(np.array([78, 156, 39]), SRGB_CURVE, DISPLAY_P3)).max() <= 1


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_profile_that_moves_pixels_by_one_is_none(mode, step):
    class Transform:
        def apply(self, image):
            return image.point(lambda value: min(value + step, 255))

    assert colour._changes_nothing(Transform(), mode) == (step <= 1)


def test_a_profile_longer_than_any_is_ignored(monkeypatch):
    content = profile(b"RGB ", SRGB_CURVE, DISPLAY_P3)
    monkeypatch.setattr(colour, "MAX_PROFILE", len(content))
    assert not colour.stays(content, "RGB")
    assert colour.stays(content + b"\0", "RGB")


@pytest.mark.parametrize("ending", ["tiff", "jpg"])
@pytest.mark.parametrize(
    "ink", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 1, 0), (1, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)], ids=str
)
def test_inks_with_a_profile(tmp_path, ink, ending):
    path = tmp_path / f"print.{ending}"
    options = {"quality": 100} if ending == "jpg" else {}
    Image.new("CMYK", (16, 16), tuple(255 * each for each in ink)).save(
        path, icc_profile=profile(b"CMYK", 1.0), **options
    )
    wanted = lab_to_srgb(ink_lab(*ink))
    for read in (read_image(path), load_image(Image.open(path))):
        assert np.abs(pixels(read) - wanted).max() <= 3


@pytest.mark.parametrize(
    "content",
    [
        b"nothing",
        profile(b"RGB ", 2.2, ADOBE_RGB)[:200],
        profile(b"GRAY", 1.0),
        profile(b"CMYK", 1.0),
        profile(b"RGB ", 1.8, [(0, 0, 0), (0, 0.5, 0), (0, 0, 0)]),
        profile(b"RGB ", 2.2, [ADOBE_RGB[0], ADOBE_RGB[1], ADOBE_RGB[1]]),
    ],
    ids=["text", "cut", "grey", "cmyk", "no-primaries", "two-primaries"],
)
def test_a_broken_or_foreign_profile_is_ignored(tmp_path, picture, content):
    path = tmp_path / "odd.png"
    picture().save(path, icc_profile=content)
    assert np.array_equal(pixels(read_image(path)), pixels(picture()))


def test_cielab_tiff(tmp_path, picture):
    path = tmp_path / "lab.tiff"
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB", ImageCms.Intent.PERCEPTUAL
    )
    transform.apply(picture()).save(path)
    assert np.abs(pixels(read_image(path)) - pixels(picture())).mean() <= 2
