"""Reading of images: formats, modes and orientation."""

import struct

import numpy as np
import pytest
from PIL import Image

from gem_fast.images import ImageError, load_image, read_image
from tests.images.image_formats import FORMATS, LOSSLESS, OPTIONAL, pixels, write_png


@pytest.mark.parametrize("ending", FORMATS)
def test_reads_format(tmp_path, picture, ending):
    path = tmp_path / f"photo.{ending}"
    picture().save(path)
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (64, 48))
    difference = np.abs(pixels(image) - pixels(picture()))
    assert difference.max() == 0 if ending in LOSSLESS else difference.mean() < 8


@pytest.mark.parametrize("ending", ["png", "webp", "gif", "tiff"])
def test_takes_the_first_frame(tmp_path, ending):
    path = tmp_path / f"film.{ending}"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert np.abs(pixels(read_image(path)) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize(
    "ending", ["jpg", "png", "webp", "tiff", *(each for each in ("avif", "heic") if OPTIONAL[each])]
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_upright_by_exif(tmp_path, orientation, ending):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # white in the upper left quarter only
    upright[:8, 16:] = (255, 0, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{ending}"
    options = {
        "jpg": {"quality": 100, "subsampling": 0},
        "webp": {"lossless": True},
        "avif": {"quality": 100, "subsampling": "4:4:4"},
        "heic": {"quality": 100, "chroma": 444},
    }.get(ending, {})
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif.tobytes(), **options)
    for image in (read_image(path), load_image(Image.open(path))):
        assert image.size == (32, 16)
        assert np.abs(pixels(image) - upright).max() <= 8


@pytest.mark.skipif(not OPTIONAL["jxl"], reason="needs pillow-jxl-plugin")
def test_exif_turns_a_jpeg_within_jpeg_xl_only(tmp_path, picture):
    """The codestream of JPEG XL says its own orientation, and its decoder turns; EXIF is not to count."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "plain.jxl", exif=exif.tobytes())
    assert read_image(tmp_path / "plain.jxl").size == (64, 48)
    picture().save(tmp_path / "photo.jpg", exif=exif)
    Image.open(tmp_path / "photo.jpg").save(tmp_path / "jpeg.jxl", lossless_jpeg=True)
    assert np.array_equal(pixels(read_image(tmp_path / "jpeg.jxl")), pixels(read_image(tmp_path / "photo.jpg")))


def test_exif_that_pillow_cannot_write_back_is_no_obstacle(tmp_path, picture, monkeypatch):
    path = tmp_path / "odd.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(48, 64).save(path, exif=exif)

    def broken(self, offset=8):
        raise struct.error("required argument is not an integer")

    monkeypatch.setattr(Image.Exif, "tobytes", broken)
    assert read_image(path).size == (48, 64)


def test_unreadable_exif_leaves_the_picture_as_it_is(picture, monkeypatch):
    def broken(self):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", broken)
    assert load_image(picture(48, 64)).size == (64, 48)


def test_palette(tmp_path, picture):
    path = tmp_path / "palette.png"
    quantised = picture().quantize(16)
    quantised.save(path)
    assert np.array_equal(pixels(read_image(path)), pixels(quantised.convert("RGB")))


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_transparent_palette_is_put_on_white(tmp_path, ending):
    image = Image.new("P", (4, 2))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((3, 1), 1)
    path = tmp_path / f"clear.{ending}"
    image.save(path, transparency=0)
    read = pixels(read_image(path))
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[1, 3].tolist() == [200, 100, 50]


def test_a_palette_with_alpha_is_put_on_white(tmp_path):
    image = Image.new("RGBA", (4, 2), (10, 20, 30, 0))
    image.paste((200, 100, 50, 255), (2, 0, 4, 2))
    for made in (image.quantize(4, method=Image.Quantize.FASTOCTREE), image.convert("P"), image.convert("PA")):
        read = pixels(load_image(made))
        assert read[0, 0].tolist() == [255, 255, 255]
        assert np.abs(read[1, 3] - (200, 100, 50)).max() <= 30  # of few colours


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_put_on_white(tmp_path, mode):
    clear, half, solid = ((100,) * (len(mode) - 1) + (alpha,) for alpha in (0, 128, 255))
    image = Image.new(mode, (3, 1))
    for x, value in enumerate((clear, half, solid)):
        image.putpixel((x, 0), value)
    path = tmp_path / "alpha.png"
    image.save(path)
    for read in (read_image(path), load_image(image)):
        assert np.abs(pixels(read)[0, :, 0] - (255, 177, 100)).max() <= 1


@pytest.mark.parametrize("kind", ["rgb", "grey"])
def test_transparent_colour_of_png_is_put_on_white(tmp_path, kind):
    path = tmp_path / "key.png"
    if kind == "rgb":
        Image.new("RGB", (2, 2), (1, 2, 3)).save(path, transparency=(1, 2, 3))
    else:
        Image.new("L", (2, 2), 7).save(path, transparency=7)
    assert pixels(read_image(path)).min() == 255


def test_grey_and_one_bit(tmp_path):
    for mode, value, expected in (("L", 77, 77), ("1", 1, 255), ("1", 0, 0)):
        path = tmp_path / "grey.png"
        Image.new(mode, (4, 4), value).save(path)
        assert set(pixels(read_image(path)).ravel().tolist()) == {expected}


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bit_grey_is_scaled(tmp_path, ending):
    path = tmp_path / f"deep.{ending}"
    Image.fromarray(np.array([[0, 257 * 200, 65535]], np.uint16)).save(path)
    assert pixels(read_image(path))[0, :, 1].tolist() == [0, 200, 255]


def test_dark_sixteen_bit_grey_stays_dark(tmp_path):
    path = tmp_path / "dark.png"
    Image.fromarray(np.full((2, 2), 200, np.uint16)).save(path)
    assert pixels(read_image(path)).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 255.0], [0, 100, 255]), ([0.0, 25700.0, 65535.0], [0, 100, 255])],
    ids=["0..1", "0..255", "0..65535"],
)
def test_floating_tiff(tmp_path, values, expected):
    path = tmp_path / "float.tiff"
    Image.fromarray(np.array([values], np.float32)).save(path)
    assert pixels(read_image(path))[0, :, 0].tolist() == expected


def test_floating_tiff_with_nan_is_refused(tmp_path):
    path = tmp_path / "nan.tiff"
    Image.fromarray(np.array([[0.5, np.nan]], np.float32)).save(path)
    with pytest.raises(ImageError, match="NaN"):
        read_image(path)


def test_transparent_value_of_a_deep_grey_png_is_put_on_white(tmp_path):
    path = tmp_path / "key.png"
    Image.fromarray(np.array([[1000, 257 * 100]], np.uint16)).save(path, transparency=1000)
    assert pixels(read_image(path))[0, :, 0].tolist() == [255, 100]


@pytest.mark.parametrize("colours", [1, 2, 3, 4], ids=["grey", "grey-alpha", "rgb", "rgb-alpha"])
def test_sixteen_bit_png(tmp_path, colours):
    path = tmp_path / "deep.png"
    values = np.random.default_rng(0).integers(0, 65_536, (5, 7, colours))
    lines = [line.astype(">u2").tobytes() for line in values]
    write_png(path, 7, 16, {1: 0, 2: 4, 3: 2, 4: 6}[colours], lines)
    alpha = values[..., -1:] / 65_535 if colours in (2, 4) else 1
    shown = values[..., : 3 if colours > 2 else 1] / 257 * alpha + 255 * (1 - alpha)
    assert np.abs(pixels(read_image(path)) - shown).max() <= 2


@pytest.mark.parametrize(
    ("bits", "line", "key", "expected"),
    [
        (1, 0b01000000, 0, [255, 255, 255, 255]),
        (1, 0b01000000, 1, [0, 255, 0, 0]),
        (2, 0b00011011, 1, [0, 255, 170, 255]),
        (2, 0b00011011, 0, [255, 85, 170, 255]),
    ],
)
def test_transparent_value_of_a_grey_png_of_few_bits(tmp_path, bits, line, key, expected):
    path = tmp_path / "key.png"
    write_png(path, 4, bits, 0, [bytes([line])], [key])
    for read in (read_image(path), load_image(Image.open(path))):
        assert pixels(read)[0, :, 0].tolist() == expected


def test_transparent_colour_of_a_deep_png(tmp_path):
    path = tmp_path / "key.png"
    write_png(path, 2, 16, 2, [np.array([1000, 2000, 3000, 60_000, 0, 0], ">u2").tobytes()], [1000, 2000, 3000])
    assert pixels(read_image(path))[0].tolist() == [[255] * 3, [234, 0, 0]]


def test_integers_in_memory_are_8_bit_if_they_fit():
    for values, expected in (
        ([0, 100, 255], [0, 100, 255]),
        ([0, 25_700, 65_535], [0, 100, 255]),
        ([0, 1, 1], [0, 1, 1]),
    ):
        image = Image.fromarray(np.array([values], np.int32))
        assert pixels(load_image(image))[0, :, 0].tolist() == expected


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=100)
    assert np.abs(pixels(read_image(path)) - (255, 0, 0)).max() <= 6
