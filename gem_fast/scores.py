"""Cosine scores of patches with classes, at patch resolution."""

import torch
from torch import Tensor

from gem_fast.kernels.linear import linear_of_each


def score_patches(patches: Tensor, words: Tensor, groups: list[int]) -> Tensor:
    """Cosine of each patch with each class, the maximum over a class's synonyms.

    Args:
        patches: L2-normalised patch features `[B, h, w, E]`.
        words: L2-normalised embeddings of all words `[T, E]`, those of a class next to each other.
        groups: number of words of each class; they sum to T.

    Returns:
        `[B, P, h, w]` with P classes, in -1..1.
    """
    return _of_classes(_cosines(patches, words), groups)


def surgery_scores(patches: Tensor, images: Tensor, words: Tensor, groups: list[int]) -> Tensor:
    """Scores by CLIP Surgery's feature surgery: what patches share with all words is taken away from each.

    With the cosines C of patches and words, `w = T · softmax(2 · cosine(image, words))` and
    `S_ij = w_j C_ij - mean_j'(w_j' C_ij')`, which is what it makes of features, without `[N, T, E]` in memory. The
    second term is the same for every word, so labels and confidences see the weights alone.

    Args:
        patches, words, groups: as in `score_patches`; classes are two or more, for of a single one nothing is left.
        images: CLIP's own L2-normalised image embeddings `[B, E]`.

    Returns:
        `[B, P, h, w]` with P classes.
    """
    cosines = _cosines(patches, words)
    alike = torch.stack([(words.to(image) * image).sum(-1) for image in images])  # [B, T]
    weighted = cosines * (len(words) * torch.softmax(2 * alike, dim=1))[:, :, None, None]
    return _of_classes(weighted - weighted.mean(1, keepdim=True), groups)


def _cosines(patches: Tensor, words: Tensor) -> Tensor:
    """Of patches `[B, h, w, E]` and words `[T, E]`, `[B, T, h, w]`."""
    words = words.to(patches.device, patches.dtype)
    return linear_of_each(words, patches.flatten(1, 2)).unflatten(2, patches.shape[1:3])


def _of_classes(scores: Tensor, groups: list[int]) -> Tensor:
    """The maximum over each class's words, `[B, T, h, w]` -> `[B, P, h, w]`."""
    if len(groups) == scores.shape[1]:
        return scores
    return torch.stack([synonyms.amax(1) for synonyms in scores.split(groups, dim=1)], dim=1)
