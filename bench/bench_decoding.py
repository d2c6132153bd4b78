"""Score decoding: the kernel, the torch-free runtime, and the plain way with whole score maps in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gem_fast.bench.turns import Work
from gem_fast.kernels import decode_heatmaps, decode_labels
from gem_fast.kernels.decoding.heatmaps import stretched
from gem_fast.kernels.decoding.labels import labels_in_tiles
from gem_fast.kernels.decoding.reference import labels_reference, upsample
from torch import Tensor

from gem_fast.runtime.decoders import NumpyDecoder

SIZE = (448, 448)
PLAIN = {"logit_scale": 100.0, "threshold": 0.0}


def make_scores(classes: int) -> Tensor:
    """Random cosines of 28×28 patches, a few hundredths apart as CLIP's are; no patch has a class far ahead."""
    return torch.randn(classes, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.02 + 0.2


@pytest.mark.parametrize("classes", [20, 150, *(pytest.param(n, marks=pytest.mark.full) for n in (1000, 6000))])
def test_labels(in_turns: Callable[..., Any], classes: int) -> None:
    """From 28×28 patch scores to labels at 448×448; of 150 classes in under 20 MB."""
    scores = make_scores(classes)
    plain = {"plain": lambda: labels_reference(scores, SIZE, **PLAIN)}
    providers: dict[str, Callable[[], Any]] = {
        "kernel": lambda: decode_labels(scores, SIZE),
        **(plain if classes <= 1000 else {}),  # of 6,000 it would take 14 GB
        "in tiles": lambda: labels_in_tiles(scores, SIZE, **PLAIN),
        "numpy": lambda: NumpyDecoder().labels(scores.numpy(), classes, SIZE, 100.0, 0.0),
    }
    check_labels(providers)
    rows = in_turns(providers, rounds=7 if classes <= 1000 else 3, work=Work(images=1))
    added = rows["kernel"].extra["added_mb"]
    assert classes > 150 or added is None or added < 20


def check_labels(providers: dict[str, Callable[[], Any]]) -> None:
    """All give the first one's labels but where two classes are a hair apart."""
    first, *others = (np.asarray(decode()[0]) for decode in providers.values())
    assert all((first != other).mean() < 1e-4 for other in others)


@pytest.mark.parametrize("prompts", [1, 20, pytest.param(150, marks=pytest.mark.full)])
def test_heatmaps(in_turns: Callable[..., Any], prompts: int) -> None:
    """From 28×28 patch scores to heat maps at 448×448."""
    scores = make_scores(prompts)
    torch.testing.assert_close(decode_heatmaps(scores, SIZE), stretched(upsample(scores, SIZE)), rtol=0, atol=1e-5)
    providers = {"kernel": lambda: decode_heatmaps(scores, SIZE), "plain": lambda: stretched(upsample(scores, SIZE))}
    in_turns(providers, rounds=7, work=Work(traffic=4 * prompts * SIZE[0] * SIZE[1], images=1))
