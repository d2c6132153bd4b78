"""A sweep: models × sizes × batches × types × providers, each case's providers in turns, and the waterfall."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import authors
from .counting import forward_work
from .measure import TOLERANCE, Figure, Plan, distance, measure
from .processes import ProviderError, ProviderProcess
from .providers import Provider, Subject
from .records import Row, row_of
from .subjects import make_subject, random_pixels

RIVALS = ("eager", "compiled", "authors")
EAGER_LIMIT = 1700  # tokens up to which eager code is the reference; beyond, its attention matrices take gigabytes


@dataclass(frozen=True)
class Sweep:
    """What to measure; each case is timed with all providers in turns.

    Attributes:
        models, sizes, batches, dtypes: their product makes the cases; a size is the side of a square in pixels.
        backends: of the engine's attention; `auto` is its own choice.
        against: rivals besides, of `RIVALS`; the authors' package computes float32 only.
        mode: `latency` takes forwards one by one, `throughput` several in a row.
        device, threads: where all of them run.
    """

    models: Sequence[str] = ("ViT-B-16",)
    sizes: Sequence[int] = (448,)
    batches: Sequence[int] = (1,)
    dtypes: Sequence[str] = ("float32",)
    backends: Sequence[str] = ("auto",)
    against: Sequence[str] = ()
    mode: str = "latency"
    device: str = "cpu"
    threads: int | None = None
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        for name, allowed in (("against", RIVALS), ("mode", ("latency", "throughput"))):
            given = getattr(self, name)
            for value in [given] if isinstance(given, str) else given:
                if value not in allowed:
                    raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        for name in ("sizes", "batches"):
            if min(getattr(self, name), default=0) < 1:
                raise ValueError(f"{name} must name positive numbers, got {list(getattr(self, name))}")
        for name in ("models", "dtypes"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name at least one")

    def providers(self) -> list[Provider]:
        """Rivals first, then the engine on each backend, in each type."""
        found = []
        for dtype in self.dtypes:
            found += [Provider(name, name, dtype) for name in self.against if name != "authors"]
            found += [
                Provider("engine" if backend == "auto" else backend, "engine", dtype, _named(backend))
                for backend in self.backends
            ]
        return [Provider("authors", "authors")] * ("authors" in self.against) + found


def _named(backend: str) -> str | None:
    return None if backend == "auto" else backend


def waterfall(fastest: str = "cpu", dtype: str = "bfloat16") -> list[Provider]:
    """From eager code to the full engine, each technique added to those before it; `fastest` is the fused backend."""
    return [
        Provider("eager", "eager"),
        Provider("+ lean forward, SDPA for the original path", "engine", "float32", "reference", True),
        Provider("+ SDPA for self-self attention", "engine", "float32", "sdpa", True),
        Provider(f"+ fused kernels ({fastest})", "engine", "float32", fastest, True),
        Provider("+ dead branches left out", "engine", "float32", fastest),
        Provider(f"+ {dtype}", "engine", dtype, fastest),
    ]


@dataclass
class Outcome:
    """Rows of a sweep, and each model's ceilings by type: `flops` and `bytes` a second."""

    rows: list[Row] = field(default_factory=list)
    ceilings: dict[str, dict[str, float]] = field(default_factory=dict)


def run(sweep: Sweep, *, steps: Sequence[Provider] = (), tell: Callable[[Row], None] = lambda _: None) -> Outcome:
    """Measure all cases; `steps` are measured besides, in turns, on each model's first size and batch of 1.

    Raises:
        ValueError: a model or a backend does not exist.
    """
    outcome = Outcome()
    for model in sweep.models:
        with tempfile.TemporaryDirectory() as folder:
            subject = make_subject(model, Path(folder))
            cases = [(batch, size) for size in sweep.sizes for batch in sweep.batches]
            _run(sweep, subject, sweep.providers(), sweep.mode, cases, outcome, tell)
            if steps:
                _run(sweep, subject, list(steps), "waterfall", [(1, sweep.sizes[0])], outcome, tell)
    return outcome


def _run(
    sweep: Sweep,
    subject: Subject,
    providers: list[Provider],
    mode: str,
    cases: list[tuple[int, int]],
    outcome: Outcome,
    tell: Callable[[Row], None],
) -> None:
    config, dtypes = _vision_config(subject), sorted({p.dtype for p in providers})
    for _, size in cases:
        if size % config.patch_size:
            raise ValueError(f"size {size} is no multiple of {subject.name}'s patch, {config.patch_size}")
    references = {(batch, size): _reference(subject, batch, size, sweep) for batch, size in cases}
    with ExitStack() as stack:
        started, refused = _start(stack, providers, subject, sweep)
        if started:
            for dtype in dtypes:
                outcome.ceilings[dtype] = started[-1].ask({"command": "ceiling", "dtype": dtype})[0]
        for batch, size in cases:
            figures = measure(started, random_pixels(batch, size), references[batch, size], sweep.plan)
            figures += [Figure(p, batch, size, refused=reason) for p, reason in refused]
            for figure in sorted(figures, key=lambda f: providers.index(f.provider)):
                dtype = figure.provider.dtype
                work = forward_work(config, batch, size, dtype=dtype, **_counted(subject.options))
                ceiling = outcome.ceilings.get(dtype, {})
                outcome.rows.append(row_of(figure, subject.name, mode, work.flops, work.traffic, ceiling))
                tell(outcome.rows[-1])


def _start(
    stack: ExitStack, providers: list[Provider], subject: Subject, sweep: Sweep
) -> tuple[list[ProviderProcess], list[tuple[Provider, str]]]:
    """Processes of those that load, and the reason of each that does not."""
    started, refused = [], []
    for provider in providers:
        reason = authors.why_missing() if provider.kind == "authors" else None
        if reason is None:
            try:
                process = ProviderProcess(provider, subject, device=sweep.device, threads=sweep.threads)
                started.append(stack.enter_context(process))
            except ProviderError as error:
                reason = str(error)
        if reason:
            refused.append((provider, reason))
    return started, refused


def _reference(subject: Subject, batch: int, size: int, sweep: Sweep) -> np.ndarray:
    """Features of the first and the last image in float32, by eager code, or by the engine where that is too large."""
    tokens = (size // subject.model_cfg["vision_cfg"]["patch_size"]) ** 2
    images = [random_pixels(batch, size)[i : i + 1] for i in sorted({0, batch - 1})]
    by_eager, by_sdpa = Provider("reference", "eager"), Provider("reference", "engine", backend="sdpa")
    if tokens <= EAGER_LIMIT:
        answers = _answers(by_eager, subject, images, sweep)
    else:
        side = 14 * subject.model_cfg["vision_cfg"]["patch_size"]
        small = [random_pixels(1, side)]
        answers = _answers(by_sdpa, subject, [*images, *small], sweep)
        off = distance(answers.pop(), *_answers(by_eager, subject, small, sweep))
        if off > TOLERANCE["float32"]:
            raise ProviderError(f"the engine on sdpa is no reference: at {side}×{side} it is off by {off:.1e}")
    return np.concatenate([answers[0], answers[-1]])


def _answers(provider: Provider, subject: Subject, images: list[np.ndarray], sweep: Sweep) -> list[np.ndarray]:
    with ProviderProcess(provider, subject, device=sweep.device, threads=sweep.threads) as process:
        features = [process.forward(pixels, answer=True).features for pixels in images]
    return [found for found in features if found is not None]


def _vision_config(subject: Subject) -> Any:
    from gem_fast.packing import vision_config

    return vision_config(subject.model_cfg)


def _counted(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("gem_blocks", "iterations", "projections") if name in options}
