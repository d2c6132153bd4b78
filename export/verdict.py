"""The error for an export that does not agree with torch. Needs neither torch nor onnx."""

from collections.abc import Sequence

from gem_fast.errors import ExportError
from gem_fast.runtime.agreement import Comparison


class DisagreementError(ExportError):
    """What was exported does not give what the engine gives.

    Attributes:
        comparisons: all that were made.
    """

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self.comparisons = tuple(comparisons)
        wrong = [each for each in comparisons if not each.holds]
        first = wrong[0]
        share = "" if first.labels is None else f", labels equal on {first.labels:.4%} (least {first.least_labels:.4%})"
        super().__init__(
            f"{len(wrong)} of {len(comparisons)} comparisons differ from torch by more than the bound; the first is "
            f"{first.output} of {first.graph}: relative error {first.relative:.2g} (bound {first.bound:.2g}){share}"
        )
