"""Score decoding against the plain way: whole score maps in memory, softmax and maximum, minimum and maximum."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gem_fast.bench.memory import peak_growth, reset_peak
from gem_fast.kernels import decode_heatmaps, decode_labels
from gem_fast.kernels.decoding.heatmaps import stretched
from gem_fast.kernels.decoding.labels import labels_in_tiles
from gem_fast.kernels.decoding.reference import labels_reference, upsample
from torch import Tensor

SIZE = (448, 448)
PLAIN = {"logit_scale": 100.0, "threshold": 0.0}


def make_scores(classes: int) -> Tensor:
    """Random cosines of 28×28 patches, a few hundredths apart as CLIP's are; no patch has a class far ahead."""
    return torch.randn(classes, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.02 + 0.2


@pytest.mark.parametrize("classes", [20, 150, 1000])
def test_labels(in_turns: Callable[..., None], classes: int) -> None:
    """From 28×28 patch scores to labels at 448×448."""
    scores = make_scores(classes)
    fast, _ = decode_labels(scores, SIZE)
    plain, _ = labels_reference(scores, SIZE, **PLAIN)
    assert (fast != plain).float().mean() < 1e-4
    rivals = {
        "plain": lambda: labels_reference(scores, SIZE, **PLAIN),
        "in tiles": lambda: labels_in_tiles(scores, SIZE, **PLAIN),
    }
    in_turns(lambda: decode_labels(scores, SIZE), rivals, rounds=7)


def test_labels_of_six_thousand_classes(in_turns: Callable[..., None]) -> None:
    """Against torch in tiles: the plain way would take 14 GB."""
    scores = make_scores(6000)
    assert (decode_labels(scores, SIZE)[0] != labels_in_tiles(scores, SIZE, **PLAIN)[0]).float().mean() < 1e-4
    in_turns(
        lambda: decode_labels(scores, SIZE), {"in tiles": lambda: labels_in_tiles(scores, SIZE, **PLAIN)}, rounds=3
    )


@pytest.mark.parametrize("prompts", [1, 20, 150])
def test_heatmaps(in_turns: Callable[..., None], prompts: int) -> None:
    """From 28×28 patch scores to heat maps at 448×448."""
    scores = make_scores(prompts)
    torch.testing.assert_close(decode_heatmaps(scores, SIZE), stretched(upsample(scores, SIZE)), rtol=0, atol=1e-5)
    in_turns(lambda: decode_heatmaps(scores, SIZE), {"plain": lambda: stretched(upsample(scores, SIZE))}, rounds=7)


DECODERS: dict[str, Callable[[Tensor, tuple[int, int]], Any]] = {
    "labels": decode_labels,
    "labels, plain": lambda scores, size: labels_reference(scores, size, **PLAIN),
    "heat maps": decode_heatmaps,
    "heat maps, plain": lambda scores, size: stretched(upsample(scores, size)),
}


@pytest.mark.parametrize("decoder", DECODERS)
def test_peak_memory(benchmark: Any, decoder: str) -> None:
    """What decoding 150 classes adds to the peak memory of a process of its own, the result included."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        grown = benchmark.pedantic(lambda: pool.apply(memory_growth, (decoder, 150)), rounds=1)
    benchmark.extra_info["peak MB above the scores"] = round(grown, 1)
    print(f"\n{decoder}: {grown:.1f} MB above the scores")
    if decoder == "labels":
        assert grown < 20


def memory_growth(decoder: str, classes: int) -> float:
    """MB that one call adds to the process's peak."""
    scores = make_scores(classes)
    DECODERS[decoder](scores[:, :2, :2], (8, 8))  # threads start, libraries load
    reset_peak()
    return peak_growth(lambda: DECODERS[decoder](scores, SIZE))
