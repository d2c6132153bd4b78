"""Reading of images: formats, modes, orientation, arrays, tensors, and every way in which one can be unusable."""

import contextlib
import re
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from gem_fast.images import MAX_PIXELS, ImageError, load_image, read_image

LOSSLESS = ("png", "tiff", "bmp")
FORMATS = (*LOSSLESS, "jpg", "webp", "gif")


def pixels(image):
    return np.asarray(image).astype(int)


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


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
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
    options = {"quality": 100, "subsampling": 0} if ending == "jpg" else {"lossless": True} if ending == "webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    for image in (read_image(path), load_image(Image.open(path))):
        assert image.size == (32, 16)
        assert np.abs(pixels(image) - upright).max() <= 8


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


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=100)
    assert np.abs(pixels(read_image(path)) - (255, 0, 0)).max() <= 6


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
    picture(16, 24).save(path, **({} if ending in ("bmp", "gif") else {"exif": exif}))
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


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOUR = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (GREY, np.stack([GREY] * 3, -1)),
        (GREY[..., None], np.stack([GREY] * 3, -1)),
        (COLOUR, COLOUR),
        (COLOUR[:, ::-1], COLOUR[:, ::-1]),
        (np.asfortranarray(COLOUR), COLOUR),
        (np.dstack([COLOUR, np.full((3, 4), 255, np.uint8)]), COLOUR),
        (np.dstack([COLOUR, np.zeros((3, 4), np.uint8)]), np.full((3, 4, 3), 255)),
        ((COLOUR / 255).astype(np.float32), COLOUR),
        (COLOUR / 255, COLOUR),
        ((COLOUR / 255).astype(np.float16), COLOUR),
        (torch.from_numpy(COLOUR).permute(2, 0, 1), COLOUR),
        (torch.from_numpy(GREY)[None], np.stack([GREY] * 3, -1)),
        (torch.from_numpy(COLOUR / 255).permute(2, 0, 1), COLOUR),
        ((torch.from_numpy(COLOUR) / 255).permute(2, 0, 1).requires_grad_(), COLOUR),
        ((torch.from_numpy(COLOUR) / 255).permute(2, 0, 1).half(), COLOUR),
        ((torch.from_numpy(COLOUR) / 255).permute(2, 0, 1).bfloat16(), COLOUR),
    ],
    ids=[
        "HW",
        "HW1",
        "HW3",
        "flipped",
        "fortran",
        "HW4-solid",
        "HW4-clear",
        "float32",
        "float64",
        "float16",
        "tensor-3HW",
        "tensor-1HW",
        "tensor-float64",
        "tensor-grad",
        "tensor-float16",
        "tensor-bfloat16",
    ],
)
def test_arrays_and_tensors(source, expected):
    image = load_image(source)
    assert image.mode == "RGB"
    assert np.abs(pixels(image) - expected).max() <= (1 if getattr(source, "dtype", None) == torch.bfloat16 else 0)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((2, 3, 5), np.uint8), r"\[2, 3, 5\]"),
        (np.zeros((2, 3, 2), np.uint8), r"\[2, 3, 2\]"),
        (np.zeros(7, np.uint8), r"\[7\]"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros((4, 4), object), "object"),
        (np.full((4, 4, 3), 1.5), r"0\.\.1, got 1\.5"),
        (np.full((4, 4, 3), -0.5), r"0\.\.1, got -0\.5"),
        (np.full((4, 4, 3), np.nan), r"0\.\.1, got nan"),
        (np.full((4, 4, 3), np.inf), r"0\.\.1, got inf"),
        (torch.zeros(4, 4, 3), r"\[3, H, W\].*\[4, 4, 3\]"),
        (torch.zeros(4, 4), r"\[4, 4\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "int32"),
        (torch.full((3, 4, 4), torch.nan), "nan"),
        (Image.new("RGB", (0, 5)), "0×5"),
        (b"photo.jpg", "bytes"),
        (None, "NoneType"),
        (3, "int"),
    ],
    ids=[
        "five-channels",
        "two-channels",
        "one-dimension",
        "no-rows",
        "int64",
        "bool",
        "object",
        "above-one",
        "negative",
        "nan",
        "infinite",
        "tensor-HWC",
        "tensor-HW",
        "tensor-int32",
        "tensor-nan",
        "no-pixels",
        "bytes",
        "none",
        "number",
    ],
)
def test_unusable_arrays_and_types(source, reason):
    with pytest.raises(ImageError, match=reason):
        load_image(source)


def test_the_source_is_left_as_it_was(picture):
    image, array = picture().convert("RGBA"), COLOUR.copy()
    load_image(image)
    load_image(array)
    assert image.mode == "RGBA"
    assert np.array_equal(array, COLOUR)
