"""How far what was exported is from the engine, and how far it may be."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gem_fast.errors import ExportError
from gem_fast.runtime.agreement import Comparison

from .verdict import DisagreementError

if TYPE_CHECKING:
    from gem_fast.towers.vit import GemVisionTransformer

# Of a result, the truth and the largest relative error that is right: the share of pixels that are labelled alike, and
# of those others that such an error may turn.
LabelShare = Callable[[Tensor, Tensor, float], tuple[float, float]]
_ROUNDING = 5e-7  # of a cosine in float32
OUTPUTS = ("patch_features", "image_embedding", "original_features")  # of the image encoder


def agreed(comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
    """All of the comparisons; DisagreementError if one does not hold."""
    every = tuple(comparisons)
    if not all(each.holds for each in every):
        raise DisagreementError(every)
    return every


def compare(
    result: Any, truth: Tensor, plain: Tensor | None = None, share: LabelShare | None = None, **where: Any
) -> Comparison:
    """A result against the engine's.

    Args:
        result: an array or tensor.
        truth: the engine's, of the same shape.
        plain: what PyTorch alone gives in a type that rounds more, by which the bounds are loosened.
        share: of pixels that both label alike; what the error that is right may turn is not counted against it.
        **where: `graph`, `output`, `size`, `batch`, `input`.
    """
    ours = torch.as_tensor(result)
    if ours.shape != truth.shape:
        raise ExportError(f"{where['graph']} gives {where['output']} {list(ours.shape)}, not {list(truth.shape)}")
    absolute = (ours.double() - truth.double()).abs().max().item()
    found = Comparison(**where, absolute=absolute, relative=relative_error(ours, truth))
    alone = replace(found, relative=0.0 if plain is None else relative_error(plain, truth))
    near, bound = 0.0, found.loosened(alone).bound
    if share is not None:
        same, near = share(ours, truth, bound)
        found = replace(found, labels=same)
        alone = replace(alone, labels=1.0 if plain is None else sum(share(plain, truth, bound)))
    allowed = found if plain is None else found.loosened(alone)
    return replace(allowed, least_labels=allowed.least_labels - near)


def encoded(vision: "GemVisionTransformer", pixels: Tensor, original: bool) -> dict[str, Tensor]:
    """What the engine gives for the outputs of the image encoder; all of them if the unchanged path is finished."""
    features = vision(pixels, original=original)
    every = (features.patches, features.original_class, features.original_patches)
    return {name: each for name, each in zip(OUTPUTS, every, strict=True) if each is not None}


@torch.inference_mode()
def compare_encoded(
    results: Mapping[str, Any],
    pixels: Tensor,
    vision: "GemVisionTransformer",
    plain: "GemVisionTransformer | None",
    share: LabelShare | None = None,
    **where: Any,
) -> Iterator[Comparison]:
    """Outputs of an image encoder against the engine's, labels by those of the patches; see `compare`."""
    original = len(results) > 1
    truth = encoded(vision, pixels, original)
    alone = {} if plain is None else encoded(plain, pixels, original)
    for output, result in results.items():
        labels = share if output == "patch_features" else None
        yield compare(result, truth[output], alone.get(output), labels, output=output, **where)


def relative_error(result: Any, truth: Tensor) -> float:
    """Frobenius norm of the difference over that of the truth."""
    expected = truth.double()
    return float((torch.as_tensor(result).double() - expected).norm() / expected.norm())


def label_share(words: Tensor, size: tuple[int, int]) -> LabelShare:
    """Labels `[B, H, W]` at that size of the words `[T, E]`, compared for patch features `[B, h, w, E]`.

    Features that are off by d move the difference of two cosines by at most d times the distance of the two words:
    where the engine's are nearer than that to each other, an error of d may turn the label. So may rounding, where
    words are spelt otherwise but the same.
    """
    apart = torch.cdist(words, words)

    def cosines(patches: Tensor) -> Tensor:
        scores = torch.einsum("hwe,te->thw", patches.float(), words)
        return F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]

    def counted(result: Tensor, truth: Tensor, bound: float) -> Tensor:
        engine = cosines(truth)
        best, chosen = engine.argmax(0), cosines(result).argmax(0)
        lost = (engine.gather(0, best[None]) - engine.gather(0, chosen[None]))[0]
        same = best == chosen
        near = ~same & (lost <= bound * apart[best, chosen] + _ROUNDING)
        return torch.stack([same.double().mean(), near.double().mean()])

    def share(result: Tensor, truth: Tensor, bound: float) -> tuple[float, float]:
        pairs = zip(result, truth, strict=True)
        same, near = torch.stack([counted(*pair, bound) for pair in pairs]).mean(0).tolist()
        return same, near

    return share
