"""CLIP Surgery's feature surgery of scores, against its definition over features in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gem_fast.export import ExportError, ExportOptions, export_onnx

import gem_fast
from gem_fast.scores import surgery_scores


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def by_features(patches, image, words):
    """Of one image: every word's product with every patch, `[N, T, E]`, less their weighted mean over the words."""
    likeness = torch.softmax(2 * image @ words.T, dim=0)
    products = patches.flatten(0, 1)[:, None] * words * (likeness / likeness.mean())[:, None]
    left = products - products.mean(1, keepdim=True)
    return left.sum(-1).T.unflatten(1, patches.shape[:2])


@pytest.mark.parametrize("count", [2, 3, 40])
def test_it_is_what_the_features_give(count):
    patches, images, words = unit(3, 5, 7, 64), unit(3, 64, seed=1), unit(count, 64, seed=2)
    truth = torch.stack([by_features(*each, words) for each in zip(patches, images, strict=True)])
    single = [tensor.float() for tensor in (patches, images, words)]
    assert ((surgery_scores(*single, [1] * count) - truth).norm() / truth.norm()).item() < 1e-6
    alone = torch.cat([surgery_scores(single[0][[i]], single[1][[i]], single[2], [1] * count) for i in range(3)])
    assert torch.equal(alone, surgery_scores(*single, [1] * count))


def test_synonyms_are_words_of_their_own_until_the_last():
    patches, images, words = unit(2, 4, 4, 32).float(), unit(2, 32, seed=1).float(), unit(4, 32, seed=2).float()
    every = surgery_scores(patches, images, words, [1] * 4)
    found = surgery_scores(patches, images, words, [1, 2, 1])
    assert torch.equal(found, torch.stack([every[:, 0], every[:, 1:3].amax(1), every[:, 3]], dim=1))


@pytest.fixture(scope="module")
def model():
    return gem_fast.load("gem-tiny", method="clip-surgery", feature_surgery=True)


def test_segment_uses_the_images_own_embedding(model, picture):
    image = picture(96, 96)
    query = model.query(["cat", "dog", "car"])
    features = model.patch_features(np.asarray(image)[None], (96, 96))
    truth = by_features(features.patches[0].double(), features.original_class[0].double(), query.words.double())
    scores = model.segment([image, picture(96, 96, seed=1)], ["cat", "dog", "car"], size=96)[0].scores
    assert np.abs(scores - truth.numpy()).max() < 1e-6
    plain = gem_fast.load("gem-tiny", method="clip-surgery").segment(image, ["cat", "dog", "car"], size=96)
    assert np.abs(plain.scores - scores).max() > 1e-3


def test_a_single_class_is_told_from_no_word(model, picture):
    image = picture(96, 96)
    patches = model.patch_features(np.asarray(image)[None], (96, 96)).patches[0].double()
    words, empty = (model.text.encode([text], ("a photo of a {}.",)).double()[0] for text in ("cat", ""))
    truth = patches @ (words - empty)
    assert np.abs(model.segment(image, "cat", size=96).scores[0] - truth.numpy()).max() < 1e-6


def test_a_run_tells_it_and_files_get_it(model, picture, tmp_path):
    assert model.identity()["method"]["feature_surgery"] is True
    assert "feature_surgery" not in gem_fast.load("gem-tiny").identity()["method"]
    picture(96, 96).save(tmp_path / "a.png")
    outcome = gem_fast.segment_files(model, [tmp_path / "a.png"], ["cat", "dog"], tmp_path / "out")
    assert (outcome.done, outcome.failed) == (1, 0)


def test_exports_do_not_leave_it_out_silently(model, tmp_path):
    with pytest.raises(ExportError, match="load the model without feature_surgery"):
        export_onnx(model, tmp_path / "out", ExportOptions(check=False))
