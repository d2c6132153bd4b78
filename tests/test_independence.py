"""An image's result depends on nothing but the image: not on its batch, its place in it, or the number of threads."""

import numpy as np
import pytest
import torch

import gem_fast

SHAPES = {"gem-tiny": ((96, 128), (48, 40), (8, 8)), "ViT-B-16": ((96, 80), (16, 16))}


@pytest.fixture(scope="module", params=["gem-tiny", "ViT-B-16"])
def name(request):
    return request.param


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request, name):
    torch.manual_seed(0)
    return gem_fast.load(name, None if name == "gem-tiny" else "random", dtype=request.param)


def test_bits_are_those_of_the_image_alone(model, name, threads):
    query = model.query(["cat", ("car", "automobile"), "dog"], background="sky")

    def results(pixels, shape):
        patches = model.patch_features(pixels, shape)
        scores = model.scores(patches, range(len(pixels)), query.words, query.groups)
        return list(zip(patches, scores, strict=True))

    for shape in SHAPES[name]:
        pixels = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
        threads(1)
        alone = [results(each[None], shape)[0] for each in pixels]
        for count, batch in ((1, 2), (2, 1), (2, 3)):
            threads(count)
            for start in range(0, 3, batch):
                found = results(pixels[start : start + batch], shape)
                for i, (own, other) in enumerate(zip(alone[start : start + batch], found, strict=True), start):
                    told = f"{shape}, {count} threads, image {i} in a batch of {batch}"
                    assert torch.equal(own[0], other[0]), f"features of {told}"
                    assert torch.equal(own[1], other[1]), f"scores of {told}"


@pytest.mark.parametrize("classes", [1, 2, 7, 150])
def test_scores_of_a_class_are_those_among_any_others(threads, classes):
    model = gem_fast.load("gem-tiny")
    words = torch.nn.functional.normalize(torch.randn(classes, 256, generator=torch.Generator().manual_seed(0)), dim=-1)
    patches = torch.nn.functional.normalize(
        torch.randn(5, 7, 9, 256, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    threads(1)
    alone = [model.scores(patches, [i], words, [1] * classes)[0] for i in range(5)]
    for count in (1, 2):
        threads(count)
        for own, found in zip(alone, model.scores(patches, range(5), words, [1] * classes), strict=True):
            assert torch.equal(own, found)
        if torch.__version__ >= (2, 14):  # before it oneDNN takes other sums for few words
            single = [model.scores(patches, range(5), word[None], [1]) for word in words[:8]]
            assert torch.equal(torch.cat(single, 1), torch.stack(alone)[:, :8])
