"""Scores of classes against a plain loop."""

import warnings

import pytest
import torch
import torch.nn.functional as F

from gem_fast.scores import score_patches


@pytest.mark.parametrize("groups", [[1], [1, 1, 1], [3], [2, 1, 4], [1, 5, 1]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_equal_a_loop(groups, dtype):
    generator = torch.Generator().manual_seed(0)
    patches = F.normalize(torch.randn(2, 3, 4, 8, generator=generator, dtype=dtype), dim=-1)
    words = F.normalize(torch.randn(sum(groups), 8, generator=generator), dim=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score_patches(patches, words, groups)
    assert (scores.shape, scores.dtype) == ((2, len(groups), 3, 4), dtype)
    for b in range(2):
        for y in range(3):
            for x in range(4):
                first = 0
                for c, count in enumerate(groups):
                    best = max(float(patches[b, y, x] @ words[t].to(dtype)) for t in range(first, first + count))
                    assert scores[b, c, y, x] == pytest.approx(best, abs=1e-6)
                    first += count


def test_a_class_is_as_good_as_its_best_synonym():
    patches = F.normalize(torch.tensor([[[[1.0, 0.2], [0.1, 1.0]]]]), dim=-1)
    words = torch.eye(2)
    alone = score_patches(patches, words, [1, 1])
    together = score_patches(patches, words, [2])
    torch.testing.assert_close(together[:, 0], alone.amax(1))
