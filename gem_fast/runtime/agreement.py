"""How far an exported output is from the engine's, and how far it may be. Needs neither torch nor onnx."""

from dataclasses import dataclass, replace

MARGIN = 2.0  # times what PyTorch alone loses on the same input
_FLOAT32_ERROR = 2e-6  # relative, of sums in another order
_LABELS = 0.9999  # share of pixels
_SPARE_LABELS = 2e-3  # of pixels near ties, where PyTorch alone turns too few to count


@dataclass(frozen=True)
class Comparison:
    """One output of a graph for one input against the engine in float32.

    Attributes:
        graph: the file's name.
        output: of the graph.
        size: of the images, `"448x640"`, or of the grid that the head got; None for texts.
        batch: images, or texts.
        input: what was fed.
        absolute: the largest absolute difference.
        relative: the Frobenius norm of the difference over that of the engine's output.
        bound: the largest `relative` that is right.
        labels: the share of pixels with the same label, or None where there are none.
        least_labels: the smallest such share that is right, given how many pixels lie so near a tie that `bound` turns
            them.
    """

    graph: str
    output: str
    size: str | None
    batch: int
    input: str
    absolute: float
    relative: float
    bound: float = _FLOAT32_ERROR
    labels: float | None = None
    least_labels: float = _LABELS

    @property
    def holds(self) -> bool:
        return self.relative <= self.bound and (self.labels is None or self.labels >= self.least_labels)

    def loosened(self, plain: "Comparison") -> "Comparison":
        """With the bounds of a type that rounds more, given what PyTorch alone loses by it on the same input."""
        loosened = replace(self, bound=max(self.bound, MARGIN * plain.relative))
        if plain.labels is None:
            return loosened
        return replace(loosened, least_labels=1 - MARGIN * (1 - plain.labels) - _SPARE_LABELS)
