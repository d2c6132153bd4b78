"""CLIP Surgery's feature surgery of scores, without torch; `gem_fast.scores` has the torch engine's."""

from collections.abc import Sequence

import numpy as np


def surgery_scores(cosines: np.ndarray, images: np.ndarray, words: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    """Cosines of each word `[B, T, h, w]` to scores of classes `[B, P, h, w]`.

    With `w = T · softmax(2 · cosine(image, words))`, `S_ij = w_j C_ij - mean_j'(w_j' C_ij')`.

    Args:
        cosines: of patches and words.
        images: CLIP's own L2-normalised image embeddings `[B, E]`.
        words: L2-normalised embeddings `[T, E]`, those of a class next to each other.
        groups: number of words of each class; classes are two or more, for of a single one nothing is left.
    """
    alike = 2 * np.stack([words @ image for image in images])
    weights = np.exp(alike - alike.max(1, keepdims=True))
    weights *= len(words) / weights.sum(1, keepdims=True)
    weighted = cosines * weights[:, :, None, None]
    first = np.cumsum([0, *groups[:-1]])
    scores: np.ndarray = np.maximum.reduceat(weighted - weighted.mean(1, keepdims=True), first, axis=1)
    return scores
