"""Cosine scores of patches with classes, at patch resolution."""

import torch
from torch import Tensor


def score_patches(patches: Tensor, words: Tensor, groups: list[int]) -> Tensor:
    """Cosine of each patch with each class, the maximum over a class's synonyms.

    Args:
        patches: L2-normalised patch features `[B, h, w, E]`.
        words: L2-normalised embeddings of all words `[T, E]`, those of a class next to each other.
        groups: number of words of each class; they sum to T.

    Returns:
        `[B, P, h, w]` with P classes, in -1..1.
    """
    words = words.to(patches.device, patches.dtype)
    # Image by image on a CPU: a product's bits depend on its number of rows there, and an image's would on its batch.
    parts = patches.split(1) if patches.device.type == "cpu" else [patches]
    scores = torch.cat([torch.einsum("bhwe,te->bthw", part, words) for part in parts])
    if len(groups) == len(words):
        return scores
    return torch.stack([synonyms.amax(1) for synonyms in scores.split(groups, dim=1)], dim=1)
