"""Arrays, tensors and PIL images as images."""

import numpy as np
import pytest
import torch
from PIL import Image

from gem_fast.images import ImageError, load_image
from tests.images.image_formats import pixels

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
        (COLOUR.astype(np.uint16) * 257, COLOUR),
        (GREY.astype(np.uint16) * 257, np.stack([GREY] * 3, -1)),
        ((COLOUR.astype(np.uint16) * 257).astype(">u2"), COLOUR),
        ((COLOUR / 255).astype(">f4"), COLOUR),
        (GREY > 5, np.stack([GREY > 5] * 3, -1) * 255),
        (np.dstack([GREY, np.full((3, 4), 255, np.uint8)]), np.stack([GREY] * 3, -1)),
        (np.dstack([GREY, np.zeros((3, 4), np.uint8)]), np.full((3, 4, 3), 255)),
        (torch.from_numpy(np.dstack([COLOUR, np.full((3, 4), 255, np.uint8)])).permute(2, 0, 1), COLOUR),
        (torch.zeros(4, 3, 4, dtype=torch.uint8), np.full((3, 4, 3), 255)),
        (torch.zeros(2, 3, 4), np.full((3, 4, 3), 255)),
        (torch.from_numpy(COLOUR.astype(np.uint16) * 257).permute(2, 0, 1), COLOUR),
        (torch._neg_view(-torch.from_numpy(COLOUR / 255)).permute(2, 0, 1), COLOUR),
        (COLOUR / 255 * (1 + 1e-6), COLOUR),
        ((COLOUR / 255 - 1e-6).astype(np.float32), COLOUR),
        (np.full((3, 4, 3), 1.001), np.full((3, 4, 3), 255)),
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
        "uint16",
        "uint16-HW",
        "uint16-big-endian",
        "float32-big-endian",
        "bool",
        "HW2-solid",
        "HW2-clear",
        "tensor-4HW-solid",
        "tensor-4HW-clear",
        "tensor-2HW-clear",
        "tensor-uint16",
        "tensor-negative-bit",
        "above-by-rounding",
        "below-by-rounding",
        "white-by-rounding",
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
        (np.zeros(7, np.uint8), r"\[7\]"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4), np.int16), "int16"),
        (np.full((4, 4, 3), 1.003), r"0\.\.1, got 1\.003"),
        (np.full((4, 4, 3), -0.003), r"0\.\.1, got -0\.003"),
        (np.zeros((4, 4), object), "object"),
        (np.full((4, 4, 3), 1.5), r"0\.\.1, got 1\.5"),
        (np.full((4, 4, 3), -0.5), r"0\.\.1, got -0\.5"),
        (np.full((4, 4, 3), np.nan), r"0\.\.1, got nan"),
        (np.full((4, 4, 3), np.inf), r"0\.\.1, got inf"),
        (torch.zeros(5, 4, 3), r"\[3, H, W\].*\[5, 4, 3\]"),
        (torch.zeros(4, 4), r"\[4, 4\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "int32"),
        (torch.full((3, 4, 4), torch.nan), "nan"),
        (torch.zeros(3, 4, 4, device="meta"), r"must be dense and hold its values \("),
        (torch.zeros(3, 4, 4).to_sparse(), r"must be dense and hold its values \("),
        (torch.complex(torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)).conj(), "complex64"),
        (Image.new("RGB", (0, 5)), "0×5"),
        (b"photo.jpg", "bytes"),
        (None, "NoneType"),
        (3, "int"),
    ],
    ids=[
        "five-channels",
        "one-dimension",
        "no-rows",
        "int64",
        "int16",
        "just-above-one",
        "just-below-zero",
        "object",
        "above-one",
        "negative",
        "nan",
        "infinite",
        "tensor-HWC",
        "tensor-HW",
        "tensor-int32",
        "tensor-nan",
        "tensor-meta",
        "tensor-sparse",
        "tensor-complex",
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
