"""What Pillow's plugins would read wrongly: read right, or refused by name."""

import struct

import numpy as np
import pytest
from PIL import Image

from gem_fast.images import ImageError, load_image, read_image
from tests.images.image_formats import box, pixels, write_png
from tests.images.test_colour import DISPLAY_P3, SRGB_CURVE, expected, profile

SIZ = b"\xff\x4f\xff\x51"


def write_jp2(path, mode, depths):
    """A JPEG 2000 whose header gives its samples these depths, 128 more for a sign."""
    Image.new(mode, (16, 16)).save(path)
    content = bytearray(path.read_bytes())
    place = content.index(SIZ) + 42
    content[place : place + 3 * len(depths) : 3] = bytes(bits - 1 for bits in depths)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("mode", "depths", "said"),
    [
        *(("RGB", [bits] * 3, f"{bits} bits") for bits in (4, 9, 10, 12, 14, 16)),
        ("L", [1], "1 bits"),
        ("LA", [8, 16], "8 bits and 16 bits"),
        ("RGBA", [8, 8, 8, 1], "1 bits and 8 bits"),
        ("I;16", [17], "17 bits"),
        ("I;16", [16 + 128], "16 bits with a sign"),
        ("RGB", [8 + 128] * 3, "8 bits with a sign"),
    ],
    ids=lambda value: str(value).replace(" ", ""),
)
@pytest.mark.parametrize("ending", ["jp2", "j2k"])
def test_jpeg_2000_of_depths_that_pillow_overflows_is_refused(tmp_path, mode, depths, said, ending):
    path = tmp_path / f"deep.{ending}"
    write_jp2(path, mode, depths)
    for source in (path, Image.open(path)):
        with pytest.raises(ImageError, match=rf"deep\.{ending}: a JPEG 2000 of {said} can't be read: right would be"):
            load_image(source)


def test_grey_of_9_bits_is_refused_where_pillow_takes_it_for_8(tmp_path):
    path = tmp_path / "deep.jp2"
    write_jp2(path, "L", [9])
    with pytest.raises(ImageError, match=r"deep\.jp2: a JPEG 2000 of 9 bits can't be read"):
        read_image(path)


@pytest.mark.parametrize("ending", ["jp2", "j2k"])
def test_deep_grey_jpeg_2000(tmp_path, ending):
    path = tmp_path / f"deep.{ending}"
    Image.fromarray(np.array([[0, 257 * 100, 65_407, 65_408, 65_535]] * 8, np.uint16)).save(path)
    assert pixels(read_image(path))[0, :, 0].tolist() == [0, 100, 255, 255, 255]


def test_a_jpeg_2000_without_a_codestream_is_damaged(tmp_path, picture):
    path = tmp_path / "odd.jp2"
    picture().save(path)
    path.write_bytes(path.read_bytes().replace(b"jp2c", b"free"))
    with pytest.raises(ImageError, match=r"odd\.jp2: damaged or truncated"):
        read_image(path)


@pytest.mark.parametrize(("count", "again"), [(2, 2), (1, 1), (0, 0), (0, 1)])
def test_parts_of_a_jpeg_2000_that_are_counted_wrongly(tmp_path, picture, count, again):
    """Each tile in two parts, the second without anything in it; 0 says nothing."""
    path = tmp_path / "parts.j2k"
    picture(40, 40).save(path, tile_size=(24, 24))
    content = path.read_bytes().removesuffix(b"\xff\xd9").replace(b"\0\x01\xff\x93", bytes([0, count]) + b"\xff\x93")
    empty = (struct.pack(">HHHIBBH", 0xFF90, 10, tile, 14, 1, again, 0xFF93) for tile in range(4))
    path.write_bytes(content + b"".join(empty) + b"\xff\xd9")
    assert np.array_equal(pixels(read_image(path)), pixels(picture(40, 40)))


def test_a_jpeg_2000_in_a_colour_space_that_pillow_takes_for_rgb_is_refused(tmp_path, picture):
    path = tmp_path / "lab.jp2"
    picture().save(path)
    path.write_bytes(path.read_bytes().replace(b"colr\1\0\0\0\0\0\x10", b"colr\1\0\0\0\0\0\x0e"))
    for source in (path, Image.open(path)):
        with pytest.raises(ImageError, match=r"lab\.jp2: a JPEG 2000 in the colour space 14 can't be read"):
            load_image(source)


@pytest.mark.parametrize("method", [1, 2, 3])
def test_the_profile_of_a_jpeg_2000(tmp_path, picture, method):
    """Of two colour specifications the first counts."""
    path = tmp_path / "wide.jp2"
    picture().save(path)
    content = path.read_bytes()
    named = content[content.index(b"colr") - 4 :][:15]
    held = box(b"colr", bytes([max(2, method), 0, 0]) + profile(b"RGB ", SRGB_CURVE, DISPLAY_P3))
    start = content.index(b"jp2h") - 4
    length = int.from_bytes(content[start : start + 4], "big")
    header = content[start + 8 : start + length].replace(named, named + held if method == 1 else held + named)
    path.write_bytes(content[:start] + box(b"jp2h", header) + content[start + length :])
    wanted = expected(pixels(picture()), SRGB_CURVE, DISPLAY_P3) if method > 1 else pixels(picture())
    for source in (path, Image.open(path)):
        assert np.abs(pixels(load_image(source)) - wanted).max() <= 2


DEEP_GREY_ALPHA = {  # 2 × 2 pixels
    "integers": "0000000c4a584c200d0a870a00000014667479706a786c20000000006a786c20000000096a786c6c0a000000356a786c63"
    "ff0a0810fc087e008a16010810100070004b188b15420ad8b8310eb80b1c0010008e8c8c363706114357b0b710",
    "floats": "0000000c4a584c200d0a870a00000014667479706a786c20000000006a786c20000000096a786c6c0a0000003f6a786c63"
    "ff0a081072420ea06811081010009c004b188b15427ac6b80100c01b34010000f0938cfcefdee6e6060000e02f00001d00aae6ffffdf07",
}


@pytest.mark.parametrize("content", DEEP_GREY_ALPHA.values(), ids=DEEP_GREY_ALPHA)
def test_deep_grey_jpeg_xl_with_alpha_is_refused(tmp_path, content):
    pytest.importorskip("pillow_jxl")
    path = tmp_path / "deep.jxl"
    path.write_bytes(bytes.fromhex(content))
    for source in (path, Image.open(path)):
        with pytest.raises(ImageError, match=r"JPEG XL of deep grey with alpha can't be read"):
            load_image(source)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "F"])
def test_jpeg_xl_of_every_mode(tmp_path, mode):
    pytest.importorskip("pillow_jxl")
    path = tmp_path / "plain.jxl"
    white = {"I;16": 65_535, "F": 1.0}.get(mode, (255,) * len(mode))
    try:
        Image.new(mode, (5, 4), white).save(path, lossless=True)
    except NotImplementedError:
        pytest.skip("this version of the plugin writes no such mode")
    assert pixels(read_image(path)).min() == 255


def write_bmp(path, bits, palette, row, width, head=40):
    """A BMP of two equal rows."""
    colours = b"".join(bytes([grey] * 3) + b"\0" * (head == 40) for grey in palette)
    start = 14 + head + len(colours)
    short = struct.pack("<IHHHH", 12, width, 2, 1, bits)
    long = struct.pack("<IiiHHIIiiII", 40, width, 2, 1, bits, 0, 0, 0, 0, len(palette), 0)
    row = row.ljust(-(-len(row) // 4) * 4, b"\0")
    path.write_bytes(b"BM" + struct.pack("<IHHI", start + 2 * len(row), 0, 0, start) + (
        long if head == 40 else short
    ) + colours + 2 * row)  # fmt: skip


@pytest.mark.parametrize(
    ("bits", "palette", "row"),
    [
        (1, [0, 255], b"\x50"),
        (4, [0, 255], b"\x01\x01"),
        (8, [0, 255], b"\0\1\0\1"),
        (4, range(16), b"\x01\x0f"),
        (8, range(16), b"\0\1\0\x0f"),
        (4, [17 * step for step in range(16)], b"\x01\x0f"),
    ],
    ids=["1-two", "4-two", "8-two", "4-steps", "8-steps", "4-grey"],
)
def test_bmp_with_a_grey_palette(tmp_path, bits, palette, row):
    path = tmp_path / "grey.bmp"
    write_bmp(path, bits, palette, row, 4)
    wanted = [palette[0], palette[1], palette[0], palette[15 if len(palette) == 16 else 1]]
    for source in (path, Image.open(path)):
        assert pixels(load_image(source))[:, :, 1].tolist() == [wanted] * 2


def test_a_bmp_with_a_short_header_and_a_grey_palette(tmp_path):
    path = tmp_path / "grey.bmp"
    write_bmp(path, 4, range(16), b"\x01\x0f", 4, head=12)
    assert pixels(read_image(path))[0, :, 1].tolist() == [0, 1, 0, 15]


def test_a_bmp_of_a_kind_that_is_not_read_is_not_called_damaged(tmp_path):
    path = tmp_path / "order.bmp"
    masks = struct.pack("<IIII", 0xFF, 0xFF00, 0xFF0000, 0)  # red, green, blue and nothing
    head = struct.pack("<IiiHHIIiiII", 56, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0) + masks
    path.write_bytes(b"BM" + struct.pack("<IHHI", 14 + 56 + 8, 0, 0, 14 + 56) + head + bytes(8))
    with pytest.raises(ImageError, match=r"order\.bmp: of a kind that is not read \(Unsupported BMP bitfields"):
        read_image(path)


@pytest.mark.parametrize("mask", [0, 1 << 15], ids=["none", "alpha"])
@pytest.mark.parametrize("head", [56, 124])
def test_the_alpha_bit_of_a_bmp_of_16_bits(tmp_path, head, mask):
    path = tmp_path / "bit.bmp"
    long = struct.pack("<IiiHHIIiiII", head, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0x7C00, 0x3E0, 0x1F, mask)
    row = struct.pack("<HH", 0x7C00, 0xFC00)  # red without the bit and with it
    content = (long + masks).ljust(head, b"\0") + row
    path.write_bytes(b"BM" + struct.pack("<IHHI", 14 + head + 4, 0, 0, 14 + head) + content)
    red = [255, 0, 0]
    for source in (path, Image.open(path)):
        assert pixels(load_image(source)).tolist() == [[[255] * 3 if mask else red, red]]


@pytest.mark.parametrize("head", [56, 108, 124])
@pytest.mark.parametrize("alpha", [0, 255])
def test_an_alpha_of_nothing_but_zeros_is_none_in_a_bmp(tmp_path, head, alpha):
    """Two red pixels, of which the first is clear if the other is not."""
    path = tmp_path / "screen.bmp"
    long = struct.pack("<IiiHHIIiiII", head, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    content = (long + masks).ljust(head, b"\0") + bytes([0, 0, 255, 0, 0, 0, 255, alpha])
    path.write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(content), 0, 0, 14 + head) + content)
    red = [255, 0, 0]
    assert pixels(load_image(path)).tolist() == [[[255] * 3 if alpha else red, red]]


def test_a_transparent_colour_of_16_bits_is_no_other_colour(tmp_path):
    """Colours that share its upper bytes, or its lower ones, stay."""
    path = tmp_path / "key.png"
    key = [1000, 2000, 3000]
    row = [key, [1001, 2000, 3000], [1000, 2000, 3001], [1000 + 256, 2000, 3000], key]
    write_png(path, 5, 16, 2, [np.array(row, ">u2").tobytes()] * 2, key)
    clear, shown = [255] * 3, [1000 >> 8, 2000 >> 8, 3000 >> 8]
    wanted = [clear, shown, shown, [shown[0] + 1, *shown[1:]], clear]
    for source in (path, Image.open(path)):
        assert pixels(load_image(source)).tolist() == [wanted] * 2


@pytest.mark.parametrize("clear", [False, True], ids=["opaque", "transparent"])
def test_what_the_first_frame_of_a_gif_leaves_uncovered_is_white(tmp_path, picture, clear):
    path, frame = tmp_path / "part.gif", picture(20, 10).quantize(8)
    frame.save(path, **({"transparency": 7} if clear else {}))
    content = bytearray(path.read_bytes())
    content[6:10] = struct.pack("<HH", 40, 30)  # the screen's size
    path.write_bytes(content)
    wanted = np.full((30, 40, 3), 255)
    wanted[:20, :10] = pixels(load_image(frame))
    for read in (load_image(path), load_image(Image.open(path))):
        assert np.array_equal(pixels(read)[:, 10:], wanted[:, 10:])
        assert clear or np.array_equal(pixels(read), wanted)
