"""The size of the model's input, and pixels against torchvision's pipeline."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import gem_fast
from gem_fast.demo import SAMPLES, sample_prompts
from gem_fast.images import ImageError
from gem_fast.model import GemModel
from gem_fast.preprocess import (
    FREE_TOKENS,
    MAX_STRETCH,
    MAX_TOKENS,
    input_size,
    resized,
    resized_by_torch,
    to_pixels,
    unbounded_size,
)
from gem_fast.segmenter import Segmenter

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


@pytest.mark.parametrize(
    ("image", "size", "policy", "patch", "expected"),
    [
        ((480, 640), 448, "shorter", 16, (448, 592)),  # 448 / 480 × 640 = 597.3
        ((640, 480), 448, "shorter", 16, (592, 448)),
        ((448, 448), 448, "shorter", 14, (448, 448)),
        ((100, 100), 450, "shorter", 16, (448, 448)),
        ((100, 100), 457, "shorter", 16, (464, 464)),
        ((480, 640), 448, "squash", 16, (448, 448)),
        ((9, 5000), 448, "squash", 14, (448, 448)),
        ((480, 640), 448, "exact", 16, (480, 640)),
        ((481, 633), 1, "exact", 16, (480, 640)),
        ((3, 5), 448, "exact", 16, (16, 16)),
        ((2, 200), 32, "shorter", 32, (32, 3200)),
        ((50, 60), 1, "shorter", 16, (16, 16)),
    ],
)
def test_input_size(image, size, policy, patch, expected):
    assert input_size(image, size, policy, patch) == expected


@pytest.mark.parametrize("policy", ["shorter", "squash", "exact"])
@pytest.mark.parametrize("patch", [14, 16, 32])
def test_sides_are_positive_multiples_of_the_patch(policy, patch):
    for height in (1, 7, 97, 448):
        for width in (3, 31, 640):
            for side in input_size((height, width), 64, policy, patch):
                assert side >= patch
                assert side % patch == 0


def test_a_thread_of_an_image_is_refused_with_a_way_out():
    with pytest.raises(ImageError, match=r"10000×1 .*squash"):
        input_size((1, 10_000), 448, "shorter", 16)
    assert input_size((1, 10_000), 448, "squash", 16) == (448, 448)


@pytest.mark.parametrize(
    ("image", "size", "policy", "patch", "expected"),
    [
        ((1792, 1792), 1792, "shorter", 16, (1792, 1792)),
        ((3000, 4500), 1792, "shorter", 16, (1792, 2688)),
        ((500, 2000), 448, "shorter", 16, (448, 1792)),
        ((500, 4000), 448, "shorter", 16, (448, 3584)),
        ((2000, 3000), 448, "exact", 16, (2000, 3008)),
        ((50, 400), 96, "shorter", 8, (96, 768)),
        ((100, 1), 96, "shorter", 8, (1360, 96)),  # 12 × 170 tokens, of 12 × 1,200
        ((10, 2000), 96, "shorter", 8, (96, 1360)),
        ((100, 1000), 448, "shorter", 16, (448, 3584)),  # 8 times the square, of 10
        ((100, 1000), 1792, "shorter", 16, (1792, 9360)),  # 112 × 585 of MAX_TOKENS
    ],
)
def test_long_images_are_squashed_to_a_bounded_number_of_tokens(image, size, policy, patch, expected):
    assert input_size(image, size, policy, patch) == expected


@pytest.mark.parametrize("patch", [8, 14, 16, 32])
@pytest.mark.parametrize("size", [32, 96, 448, 1024])
def test_tokens_of_any_image_are_bounded(size, patch):
    for ratio in (1, 1.5, 4, 7, 9, 30, 80):
        for image in ((60, round(60 * ratio)), (round(60 * ratio), 60)):
            height, width = input_size(image, size, "shorter", patch)
            free = unbounded_size(image, size, "shorter", patch)
            most = min(MAX_TOKENS, max(FREE_TOKENS, MAX_STRETCH * round(size / patch) ** 2))
            assert height * width <= most * patch**2
            assert (height, width) == free or height * width > (most - min(free) // patch) * patch**2


@pytest.mark.parametrize(
    ("image", "size", "policy"), [((5000, 5000), 448, "exact"), ((9, 9), 5000, "squash"), ((9, 9), 5000, "shorter")]
)
def test_more_tokens_than_any_square_is_given_are_refused(image, size, policy):
    with pytest.raises(ImageError, match=r"tokens of at most 65,536, .*smaller size, or the resize policy squash"):
        input_size(image, size, policy, 16)


def test_unknown_policy_names_the_known_ones():
    with pytest.raises(ValueError, match="shorter, squash, exact, got 'crop'"):
        input_size((10, 10), 448, "crop", 16)


@pytest.mark.parametrize("size", [(32, 48), (96, 64), (16, 16), (48, 64)], ids=["down", "up", "mixed", "same"])
def test_pixels_equal_torchvisions(picture, size):
    image = picture(48, 64)
    theirs = transforms.Compose(
        [
            transforms.Resize(size, transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )(image)
    ours = to_pixels(image, size, MEAN, STD)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_pixels_of_one_pixel():
    pixels = to_pixels(Image.new("RGB", (1, 1), (255, 0, 51)), (16, 32), (0.5,) * 3, (0.5,) * 3)
    assert pixels.shape == (3, 16, 32)
    torch.testing.assert_close(pixels.amax((1, 2)), torch.tensor([1.0, -1.0, -0.6]))


@pytest.mark.parametrize("size", [(448, 597), (96, 128), (32, 640), (300, 451), (8, 8)], ids=str)
def test_torchs_resize_is_pillows_within_a_value(size):
    image = Image.open(SAMPLES / "chelsea.jpg").convert("RGB")
    ours, pillows = resized_by_torch(image, size), resized(image, size)
    assert (ours.shape, ours.dtype) == (pillows.shape, np.uint8)
    assert (np.abs(ours.astype(int) - pillows) > 1).mean() < 1e-3
    if size == (300, 451):
        assert np.array_equal(ours, np.asarray(image))


def test_labels_hardly_depend_on_which_resize_it_is(monkeypatch):
    """The torch-free runtime has Pillow's."""
    model = gem_fast.load("gem-tiny")
    names, words = list(sample_prompts()), ["cat", "umbrella", "car", "tree", "house", "dog", "rocket"]
    ours = model.segment([str(SAMPLES / name) for name in names], words, threshold=0.3)
    monkeypatch.setattr(GemModel, "resized", Segmenter.resized)
    pillows = model.segment([str(SAMPLES / name) for name in names], words, threshold=0.3)
    equal = [one.labels == other.labels for one, other in zip(ours, pillows, strict=True)]
    assert not all(each.all() for each in equal)
    assert np.mean(np.concatenate([each.ravel() for each in equal])) >= 0.999
