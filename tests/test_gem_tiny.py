"""The embedded model, end to end: it loads, is small, and finds objects in scenes it has never seen."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from gem_fast.kernels import decode_heatmaps, decode_labels

import gem_fast
from gem_fast.demo import SAMPLES, sample_prompts
from gem_fast.evaluation.scenes import load_scenes
from gem_fast.preprocess import to_pixels
from gem_fast.scores import score_patches

HEATMAP_THRESHOLD = 0.5  # the paper's


@pytest.fixture(scope="module")
def model():
    return gem_fast.load("gem-tiny")


@pytest.fixture(scope="module")
def cosines(model):
    """Of GEM's and plain CLIP's patches, for each scene: [objects, h, w] each."""
    scenes, side = load_scenes(), model.defaults.size
    pixels = torch.stack([to_pixels(image, (side, side), model.mean, model.std) for image, _ in scenes])
    gem, clip = [], []
    for start in range(0, len(scenes), 50):
        features = model.features(pixels[start : start + 50], original=True)
        for i, (_, masks) in enumerate(scenes[start : start + 50]):
            words = model.encode_text(list(masks))
            ones = [1] * len(masks)
            gem.append(score_patches(features.patches[i : i + 1], words, ones)[0])
            clip.append(score_patches(features.original_patches[i : i + 1], words, ones)[0])
    return {"gem": gem, "clip": clip}


def mean_iou(cosines):
    """Of the heat map over the threshold with the object's visible pixels, over all objects of all scenes."""
    ious = []
    for cosine, (image, masks) in zip(cosines, load_scenes(), strict=True):
        maps = decode_heatmaps(cosine, (image.height, image.width)).numpy() >= HEATMAP_THRESHOLD
        ious += [(m & t).sum() / (m | t).sum() for m, t in zip(maps, masks.values(), strict=True)]
    return float(np.mean(ious))


def right_word_share(cosines):
    """Share of object pixels in scenes of two objects on which the object's own word beats the other's."""
    right = total = 0
    for cosine, (image, masks) in zip(cosines, load_scenes(), strict=True):
        if len(masks) == 2:
            labels = decode_labels(cosine, (image.height, image.width))[0].numpy()
            for own, mask in enumerate(masks.values(), 1):
                right += int((labels[mask] == own).sum())
                total += int(mask.sum())
    return right / total


def test_finds_objects_far_better_than_plain_clip(cosines):
    assert len(load_scenes()) == 200
    gem, clip = mean_iou(cosines["gem"]), mean_iou(cosines["clip"])
    print(f"mean IoU: GEM {gem:.3f}, plain CLIP {clip:.3f}")
    assert gem >= 0.38
    assert gem >= 2.5 * clip


def test_the_right_word_wins_on_most_object_pixels(cosines):
    gem, clip = right_word_share(cosines["gem"]), right_word_share(cosines["clip"])
    print(f"right word: GEM {gem:.3f}, plain CLIP {clip:.3f}")
    assert gem >= 0.80
    assert clip < gem


def test_is_small_enough_to_be_part_of_the_package():
    folder = files("gem_fast") / "embedded" / "gem_tiny"
    assert sum(len(path.read_bytes()) for path in folder.iterdir()) <= 12e6


@pytest.mark.parametrize("name", sample_prompts())
def test_samples_go_through(model, name):
    result = model.segment(str(SAMPLES / name), sample_prompts()[name])
    assert result.labels.shape == result.size
    assert result.labels.max() > 0
    assert 0 <= result.confidence.min() <= result.confidence.max() <= 1


def test_photographs_of_any_shape_in_one_batch(model):
    paths = [str(SAMPLES / name) for name in ("chelsea.jpg", "coffee.jpg", "rocket.jpg", "dog_bicycle.png")]
    results = model.segment(paths, ["cat", "rocket", "tree"])
    assert [result.source for result in results] == paths
    for result in results:
        assert result.labels.shape == result.size == (result.image.height, result.image.width)
        assert result.heatmaps.shape == (3, *result.size)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_gives_nearly_the_same_labels(model, dtype):
    low = gem_fast.load("gem-tiny", dtype=dtype)
    path = str(SAMPLES / "dog_bicycle.png")
    labels = [m.segment(path, ["dog", "bicycle"], threshold=0).labels for m in (model, low)]
    assert (labels[0] == labels[1]).mean() > 0.98


def test_synonyms_and_other_templates_are_in_the_vocabulary(model, recwarn):
    model.segment(str(SAMPLES / "dog_bicycle.png"), [("dog", "puppy"), "bicycle"], templates="imagenet")
    assert not [w for w in recwarn if "vocabulary" in str(w.message)]


def test_warns_of_words_it_does_not_know(model):
    with pytest.warns(UserWarning, match="vocabulary does not hold: perestroika"):
        model.segment(str(SAMPLES / "dog_bicycle.png"), ["dog", "perestroika"])
