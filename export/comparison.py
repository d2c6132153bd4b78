"""How far what was exported is from the engine, and how far it may be."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from gem_fast.kernels import decode_labels
from torch import Tensor

from gem_fast.errors import ExportError
from gem_fast.runtime.agreement import Comparison

from .verdict import DisagreementError

if TYPE_CHECKING:
    from gem_fast.towers.vit import GemVisionTransformer

Labeller = Callable[[Tensor], Tensor]
OUTPUTS = ("patch_features", "image_embedding", "original_features")  # of the image encoder


def agreed(comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """All of the comparisons; DisagreementError if one does not hold."""
    every = tuple(comparisons)
    if not all(each.holds for each in every):
        raise DisagreementError(every)
    return every


def compare(result: Any, truth: Tensor, labelled: Labeller | None = None, **where: Any) -> Comparison:
    """A result against the engine's.

    Args:
        result: an array or tensor.
        truth: the engine's, of the same shape.
        labelled: makes labels of both.
        **where: `graph`, `output`, `size`, `batch`, `input`.
    """
    ours, theirs = torch.as_tensor(result), torch.as_tensor(truth)
    if ours.shape != theirs.shape:
        raise ExportError(f"{where['graph']} gives {where['output']} {list(ours.shape)}, not {list(theirs.shape)}")
    absolute = (ours.double() - theirs.double()).abs().max().item()
    share = None if labelled is None else (labelled(ours) == labelled(theirs)).double().mean().item()
    return Comparison(**where, absolute=absolute, relative=relative_error(result, truth), labels=share)


def encoded(vision: "GemVisionTransformer", pixels: Tensor, original: bool) -> dict[str, Tensor]:
    """What the engine gives for the outputs of the image encoder; all of them if the unchanged path is finished."""
    features = vision(pixels, original=original)
    every = (features.patches, features.original_class, features.original_patches)
    return {name: each for name, each in zip(OUTPUTS, every, strict=True) if each is not None}


def relative_error(result: Any, truth: Tensor) -> float:
    """Frobenius norm of the difference over that of the truth."""
    expected = truth.double()
    return float((torch.as_tensor(result).double() - expected).norm() / expected.norm())


def labeller(words: Tensor, size: tuple[int, int], logit_scale: float) -> Labeller:
    """From patch features `[B, h, w, E]` to labels `[B, H, W]` of the words `[T, E]` at that size."""

    def labels(patches: Tensor) -> Tensor:
        cosines = torch.einsum("bhwe,te->bthw", patches.float(), words)
        return torch.stack([decode_labels(each, size, logit_scale=logit_scale)[0] for each in cosines])

    return labels
