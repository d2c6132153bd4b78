"""Strips and tiles of TIFF: none is missing in silence, and none costs far more than the image."""

import zlib

import numpy as np
import pytest

from gem_fast.images import ImageError, read_image
from tests.images.image_formats import pixels, write_tiff


def tiled(path, image, tile, content=b"", tags=None):
    """A Deflate TIFF whose tiles all name the same bytes."""
    count = -(-image.shape[0] // tile[0]) * -(-image.shape[1] // tile[1])
    tile_tags = {
        322: ("I", [tile[1]]),
        323: ("I", [tile[0]]),
        324: ("I", [8] * count),
        325: ("I", [len(content)] * count),
    }
    write_tiff(path, image, content=content, tags={259: ("H", [8]), **tile_tags, **(tags or {})})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("size", "tile", "tags"),
    [
        ((1, 1), (1 << 15, 1 << 16), {}),
        ((1, 1), (1 << 31, 1 << 31), {}),
        ((5_000, 1), (1, 1 << 20), {}),
        ((1, 1), (4096, 4096), {277: ("H", [60_000])}),
        ((1, 1), (4096, 4096), {277: ("H", [60_000]), 284: ("H", [2])}),
        ((1, 1), (4096, 4096), {258: ("H", [65_535])}),
    ],
    ids=["giant", "beyond", "many", "samples", "planes", "bits"],
)
def test_blocks_far_larger_than_the_image_are_refused(tmp_path, size, tile, tags, dtype):
    path = tmp_path / "bomb.tif"
    tiled(path, np.zeros((*size, 1), dtype), tile, tags=tags)
    with pytest.raises(ImageError, match=r"bomb\.tif: a TIFF of 1×\d+ in .* blocks of .*, which hold far more"):
        read_image(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("size", "side"), [((1, 1), 4096), ((513, 3), 512), ((300, 257), 256)])
def test_tiles_that_jut_out_are_read(tmp_path, size, side, dtype):
    path = tmp_path / "small.tif"
    content = zlib.compress(np.full((side, side), np.iinfo(dtype).max, dtype).tobytes())
    tiled(path, np.zeros((*size, 1), dtype), (side, side), content)
    assert np.array_equal(pixels(read_image(path)), np.full((*size, 3), 255))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiles_that_the_tags_of_strips_name_are_read(tmp_path, dtype):
    path = tmp_path / "old.tif"
    image = np.random.default_rng(2).integers(0, np.iinfo(dtype).max, (20, 40, 1), dtype, endpoint=True)
    length = 16 * 16 * image.itemsize
    places = {273: ("I", [8 + length * place for place in range(6)]), 279: ("I", [length] * 6)}
    write_tiff(path, image, tile=(16, 16), tags={**places, 324: ("I", []), 325: ("I", []), 278: ("I", [16])})
    assert np.abs(pixels(read_image(path)) - image / np.iinfo(dtype).max * 255).max() <= 0.5


@pytest.mark.parametrize("offsets", [[8], [8, 0]], ids=["fewer", "nowhere"])
@pytest.mark.parametrize("layout", ["strips", "tiles"])
@pytest.mark.parametrize(
    ("bits", "photometric", "channels", "tags"),
    [
        (8, 1, 1, {}),
        (16, 1, 1, {}),
        (1, 1, 1, {}),
        (8, 2, 3, {}),
        (8, 5, 4, {}),
        (8, 6, 3, {530: ("H", [1, 1])}),
        (8, 8, 3, {}),
        (8, 3, 1, {320: ("H", [0] * 768)}),
        (8, 2, 3, {259: ("H", [7])}),
        (8, 2, 3, {259: ("H", [8])}),
    ],
    ids=["grey", "deep", "bilevel", "rgb", "cmyk", "ycbcr", "lab", "palette", "jpeg", "deflate"],
)
def test_missing_blocks_are_told(tmp_path, bits, photometric, channels, tags, layout, offsets):
    path = tmp_path / "part.tif"
    samples = np.ones((32, 16, channels), np.uint16 if bits == 16 else np.uint8)
    where = {"rows": 16} if layout == "strips" else {"tile": (16, 16)}
    number = 273 if layout == "strips" else 324
    write_tiff(path, samples, photometric=photometric, bits=bits, **where, tags={**tags, number: ("I", offsets)})
    with pytest.raises(ImageError, match=r"part\.tif: damaged or truncated \((1 of 2 )?strips or tiles"):
        read_image(path)
