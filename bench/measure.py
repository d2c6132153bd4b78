"""Providers measured in turns: checked, warmed up, one at a time, round after round."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .processes import ProviderError, ProviderProcess
from .providers import ENGINE_TOLERANCE, Provider

LONG = 30.0  # seconds of a forward that is not repeated to warm up
FIRST_AND_LAST = [0, -1]
PAUSE = 0.05  # seconds: see `Plan.pause`


@dataclass(frozen=True)
class Figure:
    """What was measured of a provider in one case; without `seconds` where `refused` says why.

    Attributes:
        seconds: of one forward of the batch, a value a round; round i of every provider took place in one turn.
        resting_mb, peak_mb: memory with the weights loaded, and at the peak of a forward (resident; on a GPU
            allocated).
        error: relative distance of the features from the reference's.
    """

    provider: Provider
    batch: int
    size: int
    seconds: tuple[float, ...] = ()
    resting_mb: float | None = None
    peak_mb: float | None = None
    error: float | None = None
    refused: str | None = None

    @property
    def median(self) -> float:
        return quantile(self.seconds, 0.5)

    @property
    def added_mb(self) -> float | None:
        """Memory that a forward adds to the weights'."""
        if self.peak_mb is None or self.resting_mb is None:
            return None
        return max(0.0, self.peak_mb - self.resting_mb)


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        rounds: turns of each provider.
        budget: seconds after which a provider takes no further turns, so that one that needs minutes does not stop
            the others from having theirs.
        calls: forwards in a row in each turn; their mean is the turn's value.
        pause: seconds before each turn, in which the threads of the one before go to sleep.
    """

    rounds: int = 5
    budget: float = 60.0
    calls: int = 1
    pause: float = PAUSE


@dataclass
class _Entry:
    process: ProviderProcess
    figure: Figure
    seconds: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)


def measure(
    processes: Sequence[ProviderProcess],
    pixels: np.ndarray,
    reference: np.ndarray | Mapping[str, np.ndarray],
    plan: Plan | None = None,
    *,
    images: slice | list[int] = FIRST_AND_LAST,
    allowed: float | None = None,
) -> list[Figure]:
    """Time the providers in turns on the same pixels.

    Args:
        processes: loaded providers; only one works at a time.
        pixels: `[B, 3, S, S]` float32, normalised.
        reference: features that all must agree with, `[len(images), h*w, E]`, or those of each method by its name.
        images: those of the pixels that the reference has; by default the first and the last.
        allowed: largest relative distance from the reference; None is what each one's type allows.

    Returns:
        A figure for each process, in their order. A provider that fails or whose features are wrong has no seconds.
    """
    plan = plan or Plan()

    def agrees(provider: Provider, features: np.ndarray) -> tuple[float, str | None]:
        own = reference if isinstance(reference, np.ndarray) else reference[provider.method]
        return check(provider, features[images], own, allowed)

    entries = [_first(process, pixels, agrees, plan.pause) for process in processes]
    for turn in range(plan.rounds):
        running = [e for e in entries if e.figure.refused is None and len(e.seconds) <= turn < _last_turn(e, plan)]
        shift = turn % max(1, len(running))
        for entry in running[shift:] + running[:shift]:
            time.sleep(plan.pause)
            try:
                _take(entry, plan)
            except ProviderError as error:
                entry.figure = replace(entry.figure, refused=str(error))
    return [_finish(entry) for entry in entries]


def _first(process: ProviderProcess, pixels: np.ndarray, agrees: Callable[..., Any], pause: float) -> _Entry:
    """The check, which warms up; a long one counts as the first turn, unless it compiled."""
    entry = _Entry(process, Figure(process.provider, len(pixels), pixels.shape[-1], resting_mb=process.resting_mb))
    time.sleep(pause)
    try:
        answer = process.forward(pixels, answer=True)
    except ProviderError as error:
        entry.figure = replace(entry.figure, refused=str(error))
        return entry
    assert answer.features is not None
    off, wrong = agrees(process.provider, answer.features)
    entry.figure = replace(entry.figure, error=off, refused=wrong)
    if answer.peak_mb is not None:
        entry.peaks.append(answer.peak_mb)
    if answer.seconds[0] > LONG and process.provider.kind != "compiled":  # whose first is mostly compilation
        entry.seconds.append(answer.seconds[0])
    return entry


def check(
    provider: Provider, features: np.ndarray, reference: np.ndarray, allowed: float | None = None
) -> tuple[float, str | None]:
    """The features' distance from the reference, and what is wrong if that is beyond `allowed` (None: their type's)."""
    off, allowed = distance(features, reference), ENGINE_TOLERANCE[provider.dtype] if allowed is None else allowed
    return off, None if off <= allowed else f"wrong output: off by {off:.1e}, and {allowed:.0e} is allowed"


def _last_turn(entry: _Entry, plan: Plan) -> int:
    """The turn from which on the provider rests, which is after its first if that used up the budget."""
    spent = sum(entry.seconds) * plan.calls
    return plan.rounds if spent < plan.budget else len(entry.seconds)


def _take(entry: _Entry, plan: Plan) -> None:
    answer = entry.process.forward(calls=plan.calls)
    entry.seconds.append(sum(answer.seconds) / plan.calls)
    if answer.peak_mb is not None:
        entry.peaks.append(answer.peak_mb)


def _finish(entry: _Entry) -> Figure:
    if entry.figure.refused:
        return entry.figure
    return replace(entry.figure, seconds=tuple(entry.seconds), peak_mb=max(entry.peaks, default=None))


def distance(features: np.ndarray, reference: np.ndarray) -> float:
    """Relative distance in the 2-norm; infinite for features of another shape or that are not finite."""
    if features.shape != reference.shape or not np.isfinite(features).all():
        return float("inf")
    return float(np.linalg.norm(features - reference) / np.linalg.norm(reference))


def quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share))


@dataclass(frozen=True)
class Ratio:
    """How many times longer one provider takes than another, of turns taken side by side.

    Attributes:
        median, low, high: median, 20% and 80% quantiles of the ratios turn by turn.
        rounds: number of turns that both took; a single one says nothing of the noise.
    """

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        noise = f"{self.low:.2f}-{self.high:.2f}" if self.rounds > 1 else "one round"
        return f"{self.median:.2f}× ({noise})"


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    """Seconds of `slow` over those of `fast`, paired by turn."""
    pairs = [a / b for a, b in zip(slow, fast, strict=False)]
    return Ratio(quantile(pairs, 0.5), quantile(pairs, 0.2), quantile(pairs, 0.8), len(pairs))
