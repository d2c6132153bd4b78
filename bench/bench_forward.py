"""The forward of ViT-B/16 with random weights by every provider, each in a process of its own, in turns in one run."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from gem_fast.bench import authors
from gem_fast.bench.counting import forward_work
from gem_fast.bench.measure import PAUSE, check
from gem_fast.bench.processes import ProviderProcess
from gem_fast.bench.providers import Provider, Subject
from gem_fast.bench.subjects import make_subject, random_pixels
from gem_fast.bench.sweep import reference, rival, start
from gem_fast.bench.turns import Work

from gem_fast.towers.packing import vision_config

PROVIDERS = {  # what a case is about, and then those that it is held against
    "float32": [
        Provider("engine", "engine"),
        Provider("authors", "authors"),
        Provider("eager", "eager"),
        Provider("sdpa", "engine", backend="sdpa"),
        rival("onnx-ort", "float32"),
    ],
    "bfloat16": [
        Provider("engine", "engine", "bfloat16"),
        Provider("authors", "authors"),
        Provider("eager", "eager", "bfloat16"),
        Provider("sdpa", "engine", "bfloat16", backend="sdpa"),
    ],
    "compiled": [Provider("engine", "engine"), Provider("eager", "eager"), Provider("compiled", "compiled")],
}
CASES = [
    pytest.param("float32", 1, 448, 5, id="float32-1x448"),
    pytest.param("bfloat16", 1, 448, 5, id="bfloat16-1x448"),
    *(
        pytest.param(kind, batch, size, rounds, id=f"{kind}-{batch}x{size}", marks=pytest.mark.full)
        for kind, batch, size, rounds in (
            ("compiled", 1, 448, 5),
            ("float32", 4, 448, 3),
            ("bfloat16", 4, 448, 3),
            ("float32", 1, 1024, 1),
            ("bfloat16", 1, 1024, 1),
        )
    ),
]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return make_subject("ViT-B-16", tmp_path_factory.mktemp("subject"))


@pytest.mark.parametrize(("kind", "batch", "size", "rounds"), CASES)
def test_forward(in_turns: Callable[..., Any], subject: Subject, kind: str, batch: int, size: int, rounds: int) -> None:
    """Features of all are checked against the float32 reference, which warms them up; then they are timed."""
    asked = [p for p in PROVIDERS[kind] if p.kind != "authors" or not authors.why_missing()]
    truth, pixels = reference(subject, batch, size), random_pixels(batch, size)
    with ExitStack() as stack:
        processes, refused = start(stack, asked, subject)
        assert not refused
        added = {process.provider.key: first_forward(process, pixels, truth) for process in processes}
        config = vision_config(subject.model_cfg)
        work = {p.key: forward_work(config, batch, size, dtype=p.dtype) for p in asked}
        in_turns(
            {process.provider.key: process.forward for process in processes},
            rounds,
            work={key: Work(w.flops, w.traffic, batch, key.split()[-1]) for key, w in work.items()},
            added_mb=added,
            pause=PAUSE,
        )


def first_forward(process: ProviderProcess, pixels: np.ndarray, truth: np.ndarray) -> float | None:
    """Check the provider's features; MB that this forward added to the weights."""
    answer = process.forward(pixels, answer=True)
    assert answer.features is not None
    assert check(process.provider, answer.features[[0, -1]], truth)[1] is None
    if answer.peak_mb is None or process.resting_mb is None:
        return None
    return max(0.0, answer.peak_mb - process.resting_mb)
