"""Image reading: from a file to normalised pixels as `segment_files` does it, against the ways of torchvision."""

import io
import itertools
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gem_fast.bench.turns import Work
from open_clip.constants import OPENAI_DATASET_MEAN as MEAN
from open_clip.constants import OPENAI_DATASET_STD as STD
from open_clip.transform import image_transform
from PIL import Image
from torchvision.io import ImageReadMode, read_file
from torchvision.io import decode_image as decode
from torchvision.transforms.v2 import functional as V

from gem_fast.images import load_image
from gem_fast.preprocess import to_pixels

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding")
SIDE = (448, 448)
SIZES = {"0.3 MP": (640, 480), "2 MP": (1920, 1080), "12 MP": (4032, 3024)}  # COCO's, a screen's, a telephone's
CASES = [
    pytest.param(*case, id=" ".join(case), marks=pytest.mark.full if case == ("png", "12 MP") else ())
    for case in itertools.product(("jpeg", "png"), SIZES)
]


def write_photo(folder: Path, kind: str, size: tuple[int, int]) -> Path:
    """A photograph of the package, enlarged with the noise of a sensor, in that format: JPEG of quality 90, 4:2:0."""
    with Image.open(io.BytesIO((files("gem_fast") / "samples" / "chelsea.jpg").read_bytes())) as image:
        enlarged = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC)).astype(np.float32)
    noisy = enlarged + np.random.default_rng(0).normal(0, 4, enlarged.shape)
    path = folder / f"photo.{kind}"
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path


def by_tensors(path: Path) -> torch.Tensor:
    """Decoded and resized as torch tensors, the way of torchvision's own decoders."""
    image = decode(read_file(str(path)), ImageReadMode.RGB)
    resized = V.resize(image, list(SIDE), V.InterpolationMode.BICUBIC, antialias=True)
    return V.normalize(V.to_dtype(resized, torch.float32, scale=True), list(MEAN), list(STD))


@pytest.mark.parametrize(("kind", "size"), CASES)
def test_reading(in_turns: Callable[..., Any], tmp_path: Path, kind: str, size: str) -> None:
    """One file to pixels `[3, 448, 448]`: decoded, upright, RGB, resized bicubically with antialias, normalised."""
    path = write_photo(tmp_path, kind, SIZES[size])
    authors_way = image_transform(SIDE, is_train=False, resize_mode="squash", interpolation="bicubic")
    providers: dict[str, Callable[[], Any]] = {
        "gem_fast": lambda: to_pixels(load_image(path), SIDE, MEAN, STD),
        "open_clip": lambda: authors_way(Image.open(path)),
        "torchvision tensors": lambda: by_tensors(path),
    }
    ours, theirs, tensors = (torch.as_tensor(read()) for read in providers.values())
    step = 1 / 255 / min(STD)  # of an 8-bit value, normalised
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (ours - tensors).abs().max() <= 2.01 * step  # rounded at other places
    in_turns(providers, rounds=5 if size == "12 MP" else 15, work=Work(images=1))


@pytest.mark.parametrize("size", SIZES)
def test_stages(in_turns: Callable[..., Any], tmp_path: Path, size: str) -> None:
    """What of it is reading the JPEG, and what is resizing and normalising."""
    path = write_photo(tmp_path, "jpeg", SIZES[size])
    image = load_image(path)
    whole, apart = to_pixels(load_image(path), SIDE, MEAN, STD), to_pixels(image, SIDE, MEAN, STD)
    np.testing.assert_array_equal(whole, apart)
    providers: dict[str, Callable[[], Any]] = {
        "both": lambda: to_pixels(load_image(path), SIDE, MEAN, STD),
        "read": lambda: load_image(path),
        "resize, normalise": lambda: to_pixels(image, SIDE, MEAN, STD),
    }
    in_turns(providers, rounds=9, work=Work(images=1))
