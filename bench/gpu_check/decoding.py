"""Cases of score decoding: labels with their confidences, and heat maps."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from gem_fast.kernels import decode_heatmaps, decode_labels
from gem_fast.kernels.attention.triton.tile_trials import DTYPES
from gem_fast.kernels.decoding.heatmaps import stretched
from gem_fast.kernels.decoding.labels import labels_in_tiles
from gem_fast.kernels.decoding.reference import labels_reference, upsample
from torch import Tensor

from .cases import Case, Outputs, Problem
from .fences import fenced

SHAPES = {  # classes, height and width of the grid, and of the output
    "20 classes, 28² to 448²": (20, (28, 28), (448, 448)),
    "150 classes, 28×37 to 450×599": (150, (28, 37), (450, 599)),
    "150 classes, 32² to 9×11": (150, (32, 32), (9, 11)),
    "6,001 classes, 14² to 112²": (6001, (14, 14), (112, 112)),
}
LOGIT_SCALE = 100.0
THRESHOLDS = (0.0, 0.5)


def decoding_cases(kinds: tuple[str, ...], quick: bool) -> Iterator[Case]:
    for kind in kinds:
        for name, shape in list(SHAPES.items())[: 1 if quick else None]:
            for threshold in THRESHOLDS:
                build = functools.partial(labels_problem, *shape, threshold, kind)
                yield Case("labels", f"{name}, threshold {threshold}", kind, build)
            yield Case("heatmaps", name, kind, functools.partial(heatmaps_problem, *shape, kind))


def make_scores(classes: int, grid: tuple[int, int], kind: str, device: torch.device) -> Tensor:
    """Cosines as CLIP has them: all positive, a few hundredths apart."""
    scores = torch.randn(classes, *grid, generator=torch.Generator().manual_seed(0)) * 0.03 + 0.2
    return fenced(scores.to(device, DTYPES[kind]))


def labels_problem(
    classes: int, grid: tuple[int, int], size: tuple[int, int], threshold: float, kind: str, device: torch.device
) -> Problem:
    """Scores of any type are decoded in float32, so plain torch decodes them in float32 too."""
    scores = make_scores(classes, grid, kind, device)
    settings: dict[str, Any] = {"logit_scale": LOGIT_SCALE, "threshold": threshold}

    def outputs(result: tuple[Tensor, Tensor]) -> Outputs:
        labels, confidence = result
        return {"confidence": confidence[..., None], "regret": regret(labels, scores, **settings)[..., None]}

    def plain() -> tuple[Tensor, Tensor]:
        return labels_reference(scores.float(), size, **settings)

    def truth() -> Outputs:
        _, confidence = labels_reference(scores.double(), size, **settings)
        return {"confidence": confidence[..., None], "regret": torch.zeros_like(confidence)[..., None]}

    return Problem(
        ours={"triton": lambda: decode_labels(scores, size, backend="triton", **settings)},
        rivals={"torch in tiles": lambda: labels_in_tiles(scores, size, **settings), "eager": plain},
        truth=truth,
        plain=lambda: outputs(plain()),
        outputs=outputs,
    )


def regret(labels: Tensor, scores: Tensor, logit_scale: float, threshold: float) -> Tensor:
    """How much better than a pixel's label the right one is in float64 [H, W], as a share of the largest logit.

    0 where it is right, tiny where rounding turns a tie, infinite for a label that there is not. For a class it is
    the logit that it lacks, with the confidence that it lacks to the threshold; for background the confidence over it.
    """
    logits = logit_scale * upsample(scores.double(), (labels.shape[0], labels.shape[1]))
    confidence = torch.softmax(logits, dim=0).amax(0)
    known = (labels >= 0) & (labels <= len(scores))
    chosen = (labels.long() - 1).clamp(0, len(scores) - 1)
    lacking = logits.amax(0) - logits.gather(0, chosen[None])[0]
    as_class = lacking + (threshold - confidence).clamp(min=0)
    as_background = (confidence - threshold).clamp(min=0)
    lost = torch.where(labels > 0, as_class, as_background) / logits.abs().max()
    return torch.where(known, lost, torch.inf)


def heatmaps_problem(
    classes: int, grid: tuple[int, int], size: tuple[int, int], kind: str, device: torch.device
) -> Problem:
    scores = make_scores(classes, grid, kind, device)

    def plain() -> Tensor:
        return stretched(upsample(scores, size))

    return Problem(
        ours={"triton": lambda: decode_heatmaps(scores, size, backend="triton")},
        rivals={"torch": plain},
        truth=lambda: {"maps": stretched(upsample(scores.double(), size))[..., None]},
        plain=lambda: {"maps": plain()[..., None]},
        outputs=lambda maps: {"maps": maps[..., None]},
    )
