"""A sweep: models × sizes × batches × types × providers, each case's providers in turns, and the waterfall."""

import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gem_fast.dtypes import DTYPES, INT8, dtype_name
from gem_fast.method import find_method
from gem_fast.options import GemOptions

from . import authors
from .measure import Figure, Plan, check, measure
from .onnx_provider import GRAPH_DTYPES, export_graph
from .openvino_provider import OPENVINO_DTYPES
from .processes import ProviderError, ProviderProcess
from .providers import Provider, Subject
from .records import Row, row_of
from .subjects import make_subject, random_pixels
from .work import forward_work

# The export's `attention`.
GRAPHS = {f"onnx-{each}": each for each in ("ort", "onnx", "portable")} | {"onnx-int8": "ort", "openvino": "onnx"}
RIVALS = ("authors", "eager", "compiled", "graph", *GRAPHS)
EAGER_LIMIT = 1700  # tokens up to which eager code is the reference; beyond, its attention matrices take gigabytes


@dataclass(frozen=True)
class Sweep:
    """What to measure; each case is timed with all providers in turns.

    Attributes:
        models, sizes, batches, dtypes: their product makes the cases; a size is the side of a square in pixels, a type
            has torch's name or a short one.
        backends: of the engine's attention; `auto` is its own choice.
        methods: that the engine computes, by the names of `gem_fast.methods()`.
        against: rivals besides, of `RIVALS`; those that have none of the types compute float32.
        mode: `latency` takes forwards one by one, `throughput` several in a row.
        device, threads: where all of them run; threads of None are as many as torch would take.
    """

    models: Sequence[str] = ("ViT-B-16",)
    sizes: Sequence[int] = (448,)
    batches: Sequence[int] = (1,)
    dtypes: Sequence[str] = ("float32",)
    backends: Sequence[str] = ("auto",)
    methods: Sequence[str] = ("gem",)
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
        for method in self.methods:
            find_method(method, GemOptions(), {})
        for name in ("models", "dtypes", "methods"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name at least one")
        object.__setattr__(self, "dtypes", tuple(dtype_name(dtype, also=(INT8,)) for dtype in self.dtypes))

    def providers(self) -> list[Provider]:
        """Rivals first, the authors' package before all, then the engine in each type, on each backend, GEM first."""
        rivals = sorted(self.against, key=lambda name: name != "authors")
        return [rival(name, dtype) for name in rivals for dtype in _types(name, self.dtypes)] + [
            engine(method, dtype, backend)
            for dtype in self.dtypes
            for backend in self.backends
            for method in sorted(self.methods, key=lambda name: name != "gem")
        ]


def engine(method: str, dtype: str, backend: str) -> Provider:
    """The engine with a method, on a backend by name or on its own choice, `auto`."""
    named = [part for part, usual in ((method, "gem"), (backend, "auto")) if part != usual]
    return Provider(" ".join(named) or "engine", "engine", dtype, None if backend == "auto" else backend, method=method)


def rival(name: str, dtype: str) -> Provider:
    """The provider of a name of `RIVALS`."""
    kind = "onnx" if name.startswith("onnx-") else name
    return Provider(name, kind, dtype, GRAPHS.get(name))


def _types(name: str, dtypes: Sequence[str]) -> Sequence[str]:
    """Those of the types that a rival computes, or float32."""
    if name == "onnx-int8":
        return [INT8]
    if name in GRAPHS:
        able = tuple(OPENVINO_DTYPES) if name == "openvino" else GRAPH_DTYPES
    else:
        able = ("float32",) if name == "authors" else DTYPES
    return [dtype for dtype in dtypes if dtype in able] or ["float32"]


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
    """Rows of a sweep, and the machine's ceilings by type: `flops` and `bytes` a second."""

    rows: list[Row] = field(default_factory=list)
    ceilings: dict[str, dict[str, float]] = field(default_factory=dict)


def run(sweep: Sweep, *, steps: Sequence[Provider] = (), tell: Callable[[Outcome], None] = lambda _: None) -> Outcome:
    """Measure all cases; `steps` are measured besides, in turns, on each model's first size and batch of 1.

    `tell` is called after each row, with all that was found so far.

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
    tell: Callable[[Outcome], None],
) -> None:
    from gem_fast.towers.served import vision_config

    config, dtypes = vision_config(subject.model_cfg), sorted({p.dtype for p in providers} - {INT8})
    for _, size in cases:
        if size % config.patch_size:
            raise ValueError(f"size {size} is no multiple of {subject.name}'s patch, {config.patch_size}")
    with ExitStack() as stack:
        methods = {p.method for p in providers}
        references = {
            case: {name: reference(subject, *case, sweep.device, sweep.threads, name) for name in methods}
            for case in cases
        }
        started, refused = start(stack, providers, subject, sweep.device, sweep.threads)
        by_torch = [process for process in started if not process.provider.graph_dtype]
        for dtype in dtypes:
            if by_torch and dtype not in outcome.ceilings:
                outcome.ceilings[dtype] = by_torch[-1].ask({"command": "ceiling", "dtype": dtype})[0]
        for batch, size in cases:
            figures = measure(started, random_pixels(batch, size), references[batch, size], sweep.plan)
            figures += [Figure(p, batch, size, refused=reason) for p, reason in refused]
            for figure in sorted(figures, key=lambda f: providers.index(f.provider)):
                dtype = figure.provider.dtype
                method = find_method(figure.provider.method, GemOptions(**subject.options), {})
                work = forward_work(config, batch, size, method, dtype)
                ceiling = outcome.ceilings.get(dtype, {})
                outcome.rows.append(row_of(figure, subject.name, mode, work.flops, work.traffic, ceiling))
                tell(outcome)


def start(
    stack: ExitStack, providers: Sequence[Provider], subject: Subject, device: str = "cpu", threads: int | None = None
) -> tuple[list[ProviderProcess], list[tuple[Provider, str]]]:
    """Processes of those that load, with the same number of threads each, and the reason of each that does not."""
    import torch

    def load(provider: Provider) -> ProviderProcess | str:
        if provider.graph_dtype:
            try:
                export_graph(provider, subject)
            except Exception as error:  # a package that is missing, or whatever the export meets
                return f"export of {provider.key}: {error}"
        try:
            return ProviderProcess(provider, subject, device=device, threads=threads or torch.get_num_threads())
        except ProviderError as error:
            return str(error)

    missing = authors.why_missing()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # most of loading is imports
        coming = [(p, pool.submit(load, p)) for p in providers if p.kind != "authors" or not missing]
    started, refused = [], [(p, missing) for p in providers if p.kind == "authors" and missing]
    for provider, future in coming:
        found = future.result()
        if isinstance(found, str):
            refused.append((provider, found))
        else:
            started.append(stack.enter_context(found))
    return started, refused


def reference(
    subject: Subject, batch: int, size: int, device: str = "cpu", threads: int | None = None, method: str = "gem"
) -> np.ndarray:
    """Features of the first and the last image in float32, by eager code, or by the engine where that is too large.

    Of other methods than GEM there is no eager code: theirs are by the engine on plain attention.
    """
    import torch

    from .torch_provider import build

    if threads:
        torch.set_num_threads(threads)
    pixels = torch.from_numpy(random_pixels(batch, size)[sorted({0, batch - 1})])

    def features(provider: Provider, images: torch.Tensor) -> np.ndarray:
        forward = build(provider, subject, device)
        with torch.inference_mode():
            found: np.ndarray = torch.cat([forward(images[i : i + 1]).cpu() for i in range(len(images))]).numpy()
        return found

    plain = engine(method, "float32", "reference")
    by_eager, by_sdpa = Provider("reference", "eager") if method == "gem" else plain, engine(method, "float32", "sdpa")
    if (size // subject.patch_size) ** 2 <= EAGER_LIMIT:
        found = features(by_eager, pixels)
    else:
        small = torch.from_numpy(random_pixels(1, 14 * subject.patch_size))
        _, wrong = check(by_sdpa, features(by_sdpa, small), features(by_eager, small))
        if wrong:
            raise ProviderError(f"the engine on sdpa is no reference: {wrong}")
        found = features(by_sdpa, pixels)
    return found[[0, -1]]
