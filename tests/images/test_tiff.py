"""TIFF of every depth, sign and layout: the same picture, or an error that says why not."""

import struct
import warnings
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image

from gem_fast.images import ImageError, load_image, read_image
from gem_fast.images.tiff import reader
from gem_fast.images.tiff import tags as reader_tags
from tests.images.image_formats import pixels, write_tiff

HEIGHT, WIDTH = 19, 23


@pytest.fixture(scope="module")
def picture_values():
    """`[H, W, 4]` in 0..1, with black and white."""
    values = np.random.default_rng(3).random((HEIGHT, WIDTH, 4))
    values[0, 0], values[0, 1] = 0, 1
    return values


def stored(values, kind, bits):
    """The values as samples of that kind whose largest is white."""
    if kind == "f":
        return values.astype(f"f{bits // 8}")
    width = next(width for width in (8, 16, 32) if bits <= width)
    return np.round(values * (2 ** (bits - (kind == "i")) - 1)).astype(f"{kind}{width // 8}")


UNSIGNED = [("u", bits) for bits in (1, 2, 4, 6, 8, 10, 12, 14, 16, 24, 32)]
OTHERS = [("i", 8), ("i", 16), ("i", 32), ("f", 16), ("f", 32), ("f", 64)]


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("layout", [{}, {"rows": 5}, {"tile": (16, 16)}], ids=["strip", "strips", "tiles"])
@pytest.mark.parametrize(("kind", "bits"), UNSIGNED + OTHERS)
def test_grey_of_any_depth(tmp_path, picture_values, kind, bits, layout, order):
    path = tmp_path / "grey.tif"
    samples = stored(picture_values[..., :1], kind, bits)
    write_tiff(path, samples, bits=bits, order=order, **layout)
    expected = samples / (1 if kind == "f" else 2.0 ** (bits - (kind == "i")) - 1) * 255
    assert np.abs(pixels(read_image(path)) - expected).max() <= 1


@pytest.mark.parametrize(("kind", "bits"), [("u", 1), ("u", 8), ("u", 12), ("u", 16), ("u", 32), ("i", 16), ("f", 32)])
def test_white_is_zero(tmp_path, picture_values, kind, bits):
    path = tmp_path / "negative.tif"
    samples = stored(picture_values[..., :1], kind, bits)
    write_tiff(path, samples, bits=bits, photometric=0)
    white = 1 if kind == "f" else 2.0 ** (bits - (kind == "i")) - 1
    assert np.abs(pixels(read_image(path)) - (255 - samples / white * 255)).max() <= 1


@pytest.mark.parametrize("bits", [1, 8, 12, 16])
def test_black_is_zero_where_no_tag_says_so(tmp_path, picture_values, bits):
    path = tmp_path / "untold.tif"
    samples = stored(picture_values[..., :1], "u", bits)
    write_tiff(path, samples, bits=bits, tags={262: ("H", [])})
    assert np.abs(pixels(read_image(path)) - samples / (2**bits - 1) * 255).max() <= 1


@pytest.mark.parametrize("planar", [False, True], ids=["chunky", "planar"])
@pytest.mark.parametrize(("kind", "bits"), [("u", 4), ("u", 8), ("u", 12), ("u", 16), ("u", 32), ("i", 16), ("f", 32)])
@pytest.mark.parametrize("layout", [{"rows": 7}, {"tile": (16, 32)}], ids=["strips", "tiles"])
def test_rgb_of_any_depth(tmp_path, picture_values, kind, bits, planar, layout):
    path = tmp_path / "colour.tif"
    samples = stored(picture_values[..., :3], kind, bits)
    write_tiff(path, samples, bits=bits, photometric=2, planar=planar, **layout)
    white = 1 if kind == "f" else 2.0 ** (bits - (kind == "i")) - 1
    assert np.abs(pixels(read_image(path)) - samples / white * 255).max() <= 1


@pytest.mark.parametrize("planar", [False, True], ids=["chunky", "planar"])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize(("kind", "bits"), [("u", 8), ("u", 16), ("f", 32)])
def test_alpha_is_put_on_white(tmp_path, picture_values, kind, bits, channels, planar):
    path = tmp_path / "clear.tif"
    values = picture_values[..., 4 - channels :]
    write_tiff(path, stored(values, kind, bits), photometric=2 if channels == 4 else 1, extra=[2], planar=planar)
    colours, alpha = values[..., :-1], values[..., -1:]
    assert np.abs(pixels(read_image(path)) - (colours * alpha + 1 - alpha) * 255).max() <= 2


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [0, 1, 2])
def test_premultiplied_alpha(tmp_path, picture_values, photometric, bits):
    path = tmp_path / "premultiplied.tif"
    colours, alpha = picture_values[..., : 3 if photometric == 2 else 1], 0.5 + picture_values[..., 3:] / 2
    inked = 1 - colours if photometric == 0 else colours
    write_tiff(path, stored(np.dstack([inked * alpha, alpha]), "u", bits), photometric=photometric, extra=[1])
    assert np.abs(pixels(read_image(path)) - (colours * alpha + 1 - alpha) * 255).max() <= 3


def test_colours_are_divided_by_alpha_and_rounded():
    colours, alpha = np.mgrid[:256, :256]
    divided = np.dstack([colours, 255 - colours]).astype(np.uint8)
    reader._divide(divided, alpha.astype(np.uint8))
    exact = np.dstack([colours, 255 - colours]) * 255 / np.maximum(alpha, 1)[..., None]
    assert np.array_equal(divided, np.minimum(np.floor(exact + 0.5), 255))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("extra", "alpha"), [([0, 2], 4), ([2, 0], 3), ([0, 0], None)], ids=["second", "first", "none"]
)
def test_alpha_among_further_samples(tmp_path, picture_values, bits, extra, alpha):
    path, told = tmp_path / "more.tif", tmp_path / "told.tif"
    samples = stored(np.dstack([picture_values, picture_values[::-1, :, :1]]), "u", bits)
    write_tiff(path, samples, photometric=2, extra=extra)
    wanted = samples[..., :3] if alpha is None else samples[..., [0, 1, 2, alpha]]
    write_tiff(told, wanted, photometric=2, extra=[] if alpha is None else [2])
    assert np.array_equal(pixels(read_image(path)), pixels(read_image(told)))


@pytest.mark.parametrize(("bits", "photometric", "extra"), [(8, 1, []), (16, 1, []), (16, 2, [0, 2])])
def test_what_samples_are_not_told_or_not_there_is_passed_over(tmp_path, picture_values, bits, photometric, extra):
    """A second one of grey that no tag explains, and tags of more than there are."""
    path, colours = tmp_path / "more.tif", 1 if photometric == 1 else 3
    samples = stored(picture_values[..., : colours + 1], "u", bits)
    write_tiff(path, samples, photometric=photometric, extra=extra)
    expected = samples[..., :colours] / (2.0**bits - 1) * 255
    assert np.abs(pixels(read_image(path)) - expected).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [[], [999]], ids=["untold", "corel"])
@pytest.mark.parametrize("planar", [False, True], ids=["chunky", "planar"])
def test_a_fourth_sample_of_rgb_is_alpha_unless_a_tag_says_otherwise(tmp_path, picture_values, bits, extra, planar):
    path, told = tmp_path / "rgba.tif", tmp_path / "told.tif"
    samples = stored(picture_values, "u", bits)
    write_tiff(path, samples, photometric=2, extra=extra, planar=planar)
    write_tiff(told, samples, photometric=2, extra=[2], planar=planar)
    assert np.abs(pixels(read_image(path)) - pixels(read_image(told))).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("planar", [False, True], ids=["chunky", "planar"])
def test_alpha_of_cmyk_is_put_on_white(tmp_path, picture_values, bits, extra, planar):
    path = tmp_path / "print.tif"
    inks, alpha = picture_values[..., :3], 0.5 + picture_values[..., 3:] / 2
    samples = np.dstack([inks, np.zeros_like(alpha)]) * (alpha if extra == 1 else 1)
    write_tiff(path, stored(np.dstack([samples, alpha]), "u", bits), photometric=5, extra=[extra], planar=planar)
    expected = 1 - inks if extra == 0 else (1 - inks) * alpha + 1 - alpha
    assert np.abs(pixels(read_image(path)) - expected * 255).max() <= 3


def test_cmyk_of_16_bits(tmp_path):
    path = tmp_path / "print.tif"
    ink = np.zeros((2, 2, 4), np.uint16)
    ink[..., 1:3] = 65_535
    write_tiff(path, ink, photometric=5)
    assert np.abs(pixels(read_image(path)) - (255, 0, 0)).max() <= 1


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"])
def test_compressed_16_bits(tmp_path, compression):
    path = tmp_path / "compressed.tif"
    values = np.random.default_rng(0).integers(0, 65_536, (40, 30), dtype=np.uint16)
    Image.fromarray(values).save(path, compression=compression)
    assert np.array_equal(pixels(read_image(path))[..., 0], np.round(values / 257))


@pytest.mark.parametrize("bits", [8, 16])
def test_large_strips_meet_no_limit_of_pillow(tmp_path, monkeypatch, bits):
    path = tmp_path / "large.tif"
    values = np.random.default_rng(0).integers(0, 2**bits, (40, 30), dtype=f"u{bits // 8}")
    Image.fromarray(values).save(path, compression="tiff_lzw")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)  # it warns from there on, and refuses twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(pixels(read_image(path))[..., 0], np.round(values / (257 if bits == 16 else 1)))


@pytest.mark.parametrize("predictor", [2, 3])
def test_predictors(tmp_path, predictor):
    """Differences from the pixel before: of samples (2), or of the floats' bytes, sorted by significance (3)."""
    path = tmp_path / "steps.tif"
    values = np.random.default_rng(0).random((4, 6, 3), np.float32)
    if predictor == 2:
        whole = np.round(values * 65_535).astype("<u2")
        steps = np.diff(whole, axis=1, prepend=np.zeros((4, 1, 3), "<u2"))
        raw, samples = steps.tobytes(), whole
    else:
        sorted_bytes = values.astype(">f4").view(np.uint8).reshape(4, 18, 4).transpose(0, 2, 1).reshape(4, -1, 3)
        raw, samples = np.diff(sorted_bytes, axis=1, prepend=np.zeros((4, 1, 3), np.uint8)).tobytes(), values
    write_tiff(
        path, samples, photometric=2, content=zlib.compress(raw), tags={259: ("H", [8]), 317: ("H", [predictor])}
    )
    assert np.abs(pixels(read_image(path)) - values * 255).max() <= 1


@pytest.mark.parametrize("compression", [1, 32773], ids=["none", "packbits"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_a_predictor_counts_only_with_compressions_that_have_one(tmp_path, compression, kind):
    path = tmp_path / "steps.tif"
    values = np.random.default_rng(0).random((4, 6, 3))
    samples = stored(values, kind[0], int(kind[1]) * 8)
    content = samples.tobytes()
    if compression != 1:  # rows as literal runs
        content = b"".join(bytes([len(row.tobytes()) - 1]) + row.tobytes() for row in samples)
    tags = {259: ("H", [compression]), 317: ("H", [3 if kind == "f4" else 2])}
    write_tiff(path, samples, photometric=2, content=content, tags=tags)
    assert np.abs(pixels(read_image(path)) - values * 255).max() <= 1


def test_a_predictor_that_is_not_known_is_told(tmp_path):
    path = tmp_path / "odd.tif"
    samples = np.zeros((2, 3, 1), np.uint16)
    write_tiff(path, samples, content=zlib.compress(samples.tobytes()), tags={259: ("H", [8]), 317: ("H", [9])})
    with pytest.raises(ImageError, match=r"odd\.tif: .*predictor 9"):
        read_image(path)


def subsampled(luma, chroma, across, down):
    """An uncompressed strip of YCbCr: units of `down` x `across` pixels that share their Cb and Cr."""
    units = [(top, left) for top in range(chroma.shape[0]) for left in range(chroma.shape[1])]
    luma = np.pad(luma, [(0, -side % step) for side, step in zip(luma.shape, (down, across), strict=True)])
    return b"".join(
        luma[top * down : (top + 1) * down, left * across : (left + 1) * across].tobytes() + chroma[top, left].tobytes()
        for top, left in units
    )


@pytest.mark.parametrize(
    ("across", "down", "told"),
    [(1, 1, True), (2, 1, True), (2, 2, True), (2, 2, False), (4, 2, True)],
    ids=["444", "422", "420", "untold", "410"],
)
def test_uncompressed_ycbcr(tmp_path, picture_values, across, down, told):
    path = tmp_path / "video.tif"
    luma, chroma = stored(picture_values[..., 0], "u", 8), stored(0.4 + picture_values[..., 1:3] / 5, "u", 8)
    chroma = np.ascontiguousarray(chroma[: -(-HEIGHT // down), : -(-WIDTH // across)])
    write_tiff(
        path, np.zeros((HEIGHT, WIDTH, 3), np.uint8), photometric=6, content=subsampled(luma, chroma, across, down),
        tags={530: ("H", [across, down])} if told else {},
    )  # fmt: skip
    whole = np.dstack([luma, chroma.repeat(down, axis=0).repeat(across, axis=1)[:HEIGHT, :WIDTH]])
    expected = Image.fromarray(whole, "YCbCr").convert("RGB")
    assert np.abs(pixels(read_image(path)) - pixels(expected)).max() <= 2


def test_ycbcr_in_planes(tmp_path, picture_values):
    chunky, planar, odd = (tmp_path / f"{name}.tif" for name in ("chunky", "planar", "odd"))
    samples = stored(0.3 + picture_values[..., :3] / 3, "u", 8)
    for path, tags in ((chunky, {530: ("H", [1, 1])}), (planar, {530: ("H", [1, 1])}), (odd, {})):
        write_tiff(path, samples, photometric=6, planar=path != chunky, tags=tags)
    assert np.array_equal(pixels(read_image(planar)), pixels(read_image(chunky)))
    with pytest.raises(ImageError, match=r"odd\.tif: a TIFF of YCbCr in planes of different sizes"):
        read_image(odd)


@pytest.mark.parametrize("extra", [[], [0], [2]], ids=["none", "other", "alpha"])
@pytest.mark.parametrize("planar", [False, True], ids=["chunky", "planar"])
def test_cielab(tmp_path, planar, extra):
    """L in 0..100 as 0..255, a and b as signed bytes: grey, red, blue; and what lies under alpha 0."""
    path = tmp_path / "lab.tif"
    samples = np.array([[(137, 0, 0, 255), (121, 56, 34, 255), (77, 25, 201, 255), (137, 0, 0, 0)]], np.uint8)
    write_tiff(path, samples[..., : 3 + len(extra)], photometric=8, planar=planar, extra=extra)
    expected = [(128, 128, 128), (200, 60, 60), (60, 60, 160), (255, 255, 255) if extra == [2] else (128, 128, 128)]
    assert np.abs(pixels(read_image(path))[0] - expected).max() <= 2


@pytest.mark.parametrize("depth", [1, 257], ids=["8-bits", "16-bits"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_palette_of_8_bits_is_taken_for_one(tmp_path, bits, depth):
    path = tmp_path / "palette.tif"
    palette = np.random.default_rng(5).integers(0, 256, (3, 2**bits))
    samples = np.arange(2**bits, dtype=np.uint8).reshape(4, -1, 1)
    write_tiff(path, samples, bits=bits, photometric=3, tags={320: ("H", (palette * depth).ravel().tolist())})
    assert np.array_equal(pixels(read_image(path)), palette.T[samples[..., 0]])


def test_odd_tags_that_say_nothing_of_the_picture_are_passed_over_in_silence(tmp_path, picture_values):
    path = tmp_path / "odd.tif"
    write_tiff(path, stored(picture_values[..., :1], "u", 8), tags={296: ("H", [2, 2])})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(path)


@pytest.mark.parametrize("compression", [4, 50_001], ids=["fax", "webp"])
def test_what_libtiff_does_not_decode_is_told_with_its_compression(tmp_path, compression):
    path = tmp_path / "odd.tif"
    write_tiff(path, np.zeros((8, 8, 1), np.uint8), content=b"none", tags={259: ("H", [compression])})
    with pytest.raises(
        ImageError, match=rf"odd\.tif: damaged or truncated, or of a kind .* \(compression {compression}\)"
    ):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_pictures_are_turned_upright(tmp_path, orientation):
    path = tmp_path / "turned.tif"
    upright = np.arange(6, dtype=np.uint16).reshape(2, 3) * 10_000
    turns = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright, 1), 7: np.rot90(upright, 2).T, 8: np.rot90(upright, -1),
    }  # fmt: skip
    write_tiff(path, np.ascontiguousarray(turns[orientation])[..., None], tags={274: ("H", [orientation])})
    assert np.array_equal(pixels(read_image(path))[..., 0], np.round(upright / 257))


def with_one_outlier(values, outlier):
    values = np.asarray(values, np.float32)
    values[5, 5] = outlier
    return values


@pytest.mark.parametrize(
    ("white", "outlier"),
    [(1, 1.004), (1, 40_000), (255, 300), (65_535, 1e9), (1.0015, -0.0015), (255.4, -0.4), (65_600, -100)],
    ids=["1", "1-far", "255", "65535", "1-rounded", "255-rounded", "65535-rounded"],
)
def test_floats_are_scaled_by_nearly_all_values(tmp_path, picture_values, white, outlier):
    path = tmp_path / "bright.tif"
    values = np.tile(picture_values[..., :1], (4, 4, 1))  # one of 6,992 pixels is less than 0.1%
    write_tiff(path, with_one_outlier(values * white, outlier))
    expected = with_one_outlier(values, 1 if outlier > 0 else 0) * 255
    assert np.abs(pixels(read_image(path)) - expected).max() <= 1


def test_alpha_says_nothing_of_what_floats_are_white(tmp_path):
    path = tmp_path / "clear.tif"
    write_tiff(path, np.array([[[0, 0.5, 1, 255]]], np.float32), photometric=2, extra=[2])
    assert pixels(read_image(path)).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.full((4, 4, 1), -0.5, np.float32), r"0\.\.1 .*0\.\.65,535, got -0\.5\.\.-0\.5"),
        (np.full((4, 4, 1), 70_000, np.float32), r"0\.\.65,535, got 70000\.\.70000"),
        (np.full((4, 4, 1), np.nan, np.float32), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), "infinite"),
        (np.array([[[-7], [300]]], np.int16), r"below 0, got -7\.\.300"),
        (np.array([[[-1], [3]]], np.int8), r"below 0, got -1\.\.3"),
        (np.array([[[-1], [3]]], np.int32), r"below 0, got -1\.\.3"),
    ],
    ids=["negative", "above", "nan", "infinite", "int16", "int8", "int32"],
)
def test_values_that_no_rule_covers_name_file_and_range(tmp_path, samples, reason):
    path = tmp_path / "odd.tif"
    write_tiff(path, samples, photometric=2 if samples.shape[2] == 3 else 1)
    with pytest.raises(ImageError, match=rf"odd\.tif: .*{reason}") as caught:
        read_image(path)
    assert str(caught.value).count("odd.tif") == 1


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({254: ("I", [1])}, "starts with a preview, as raw photos do"),
        ({262: ("H", [8])}, "photometric interpretation 8"),
        ({262: ("H", [6])}, "photometric interpretation 6"),
        ({259: ("H", [7])}, "compression 7"),
        ({339: ("H", [6])}, r"\[16\] bits in the formats \[6\]"),
        ({258: ("H", [0])}, r"\[0\] bits"),
        ({258: ("H", [24]), 259: ("H", [8]), 317: ("H", [2])}, "24 bits with the predictor 2"),
        ({277: ("H", [5])}, "5 samples a pixel"),
        ({273: ("I", [])}, "tag 273"),
        ({279: ("I", [3])}, r"strip or tile 0 holds 3 of 12 bytes"),
        ({257: ("I", [9]), 278: ("I", [1])}, "1 of 9 strips"),
        ({256: ("I", [30_000]), 257: ("I", [30_000])}, "more than"),
        ({256: ("I", [9_000]), 257: ("I", [9_000]), 277: ("H", [9]), 262: ("H", [2])}, "9 samples of 16 bits is more"),
    ],
    ids=[
        "preview",
        "lab",
        "ycbcr",
        "jpeg",
        "complex",
        "no-bits",
        "deep-predictor",
        "bands",
        "no-strip",
        "short",
        "strips",
        "giant",
        "deep-giant",
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, tags, reason):
    path = tmp_path / "odd.tif"
    content = zlib.compress(bytes(99)) if 317 in tags else None
    write_tiff(path, np.zeros((2, 3, 1), np.uint16), tags=tags, content=content)
    with pytest.raises(ImageError, match=rf"odd\.tif: .*{reason}"):
        read_image(path)


FIRST_COUNTS = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 takes the last")


@pytest.mark.parametrize("bits", [pytest.param(8, marks=FIRST_COUNTS), 16])
def test_of_tags_that_come_twice_the_first_counts(tmp_path, picture_values, bits):
    """As in Pillow, which would have the memory of the others."""
    path = tmp_path / "twice.tif"
    samples = stored(picture_values[..., :1], "u", bits)
    write_tiff(path, samples)
    before = pixels(read_image(path))
    content = path.read_bytes()
    at = int.from_bytes(content[4:8], "little")
    end = at + 2 + 12 * content[at]
    more = b"".join(struct.pack("<HHII", tag, 4, 1, 40_000) for tag in (256, 257, 278))
    path.write_bytes(content[:at] + bytes([content[at] + 3]) + content[at + 1 : end] + more + content[end:])
    assert np.array_equal(pixels(read_image(path)), before)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # by Pillows that know one order alone
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_big_tiff(tmp_path, bits, order):
    """Directories of 64 bits: counts, places and values that lie in their entry."""
    path, values = tmp_path / "big.tif", np.arange(0, 2**bits, 2**bits // 12, dtype=f"{order}u{bits // 8}")[:12]
    entries = {256: 4, 257: 3, 258: bits, 259: 1, 262: 1, 273: 16, 277: 1, 278: 2**32 - 1, 279: values.nbytes}
    table = b"".join(
        struct.pack(f"{order}HHQ", tag, 4, 1) + struct.pack(f"{order}I4x", value) for tag, value in entries.items()
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HHHQ", 43, 8, 0, 16 + values.nbytes)
    path.write_bytes(head + values.tobytes() + struct.pack(f"{order}Q", len(entries)) + table + bytes(8))
    expected = np.round(values.reshape(3, 4) / (2**bits - 1) * 255)
    assert np.array_equal(pixels(read_image(path)), np.repeat(expected[..., None], 3, 2))


def test_a_large_file_may_have_large_tags(tmp_path, picture_values, monkeypatch):
    path = tmp_path / "large.tif"
    write_tiff(path, stored(picture_values[..., :1], "u", 16))
    monkeypatch.setattr(reader_tags, "_MAX_TOTAL", 0)
    assert read_image(path).size == (WIDTH, HEIGHT)


def test_tags_that_all_name_the_same_bytes_are_not_loaded(tmp_path):
    """Pillow would load 20,000 times 100 kB."""
    path = tmp_path / "bomb.tif"
    write_tiff(path, np.zeros((180, 190, 3), np.uint8), photometric=2)
    content = bytearray(path.read_bytes())
    write_tiff(
        path, np.zeros((180, 190, 3), np.uint8), photometric=2,
        tags={tag: ("B", [0] * 5) for tag in range(40_000, 60_000)},
    )  # fmt: skip
    content = path.read_bytes()
    at = int.from_bytes(content[4:8], "little") + 2
    hostile = bytearray(content)
    for place in range(at, at + 20_000 * 12, 12):
        if int.from_bytes(content[place : place + 2], "little") >= 40_000:
            hostile[place + 4 : place + 12] = (100_000).to_bytes(4, "little") + (8).to_bytes(4, "little")
    path.write_bytes(hostile)
    with pytest.raises(ImageError, match=r"bomb\.tif: a TIFF with 20,0\d\d tags"):
        read_image(path)


@pytest.mark.parametrize(("bits", "photometric"), [(12, 1), (16, 1), (16, 0)])
def test_pictures_that_pillow_opened_are_taken_alike(tmp_path, picture_values, bits, photometric):
    path = tmp_path / "grey.tif"
    write_tiff(path, stored(picture_values[..., :1], "u", bits), bits=bits, photometric=photometric)
    with Image.open(path) as opened:
        assert np.array_equal(pixels(load_image(opened)), pixels(read_image(path)))
