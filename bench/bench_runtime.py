"""The torch-free runtime against the torch engine, from images to labels; and its decoder against torch's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gem_fast.export import ExportOptions, export_onnx
from gem_fast.export.runtime import GemRuntime
from gem_fast.export.runtime.decoding import NumpyDecoder
from PIL import Image

import gem_fast
from gem_fast.decoding import KernelDecoder

WORDS = [f"thing number {i}" for i in range(20)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[gem_fast.GemModel, Path]:
    """ViT-B/16 with random weights, in torch and as it was exported."""
    torch.manual_seed(0)
    model = gem_fast.load("ViT-B-16", "random")
    folder = tmp_path_factory.mktemp("runtime") / "exported"
    export_onnx(model, folder, ExportOptions(check=False))
    return model, folder


def noise(count: int) -> list[Image.Image]:
    """Pictures of the model's own size, so that resizing takes no part."""
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (448, 448, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("batch", [1, 4])
def test_segment(in_turns: Callable[..., None], models: tuple[gem_fast.GemModel, Path], batch: int) -> None:
    """Labels of 20 classes at 448×448; the words are encoded beforehand."""
    engine, folder = models
    runtime, images = GemRuntime(folder, threads=torch.get_num_threads()), noise(batch)

    def labels(model: Any) -> list[np.ndarray]:
        return [result.labels for result in model.segment(images, WORDS, threshold=0.0)]

    for one, other in zip(labels(runtime), labels(engine), strict=True):
        assert (one == other).mean() >= 0.999  # random weights leave near ties
    in_turns(lambda: labels(runtime), {"engine": lambda: labels(engine)}, rounds=5 if batch == 1 else 3)


OPTIONS: dict[str, dict[str, Any]] = {
    "no arena": {"arena": False},
    "no prepacking": {"prepacking": False},
    "extended": {"optimization": "extended"},
    "basic": {"optimization": "basic"},
    "1 thread": {"threads": 1},
}


def test_options(in_turns: Callable[..., None], models: tuple[gem_fast.GemModel, Path]) -> None:
    """Patch features of one image, with each option changed in turn."""
    images, size = noise(1), (448, 448)
    usual, *others = (GemRuntime(models[1], verify=False, **chosen) for chosen in ({}, *OPTIONS.values()))
    rivals = {
        name: lambda other=other: other.patch_features(images, size)
        for name, other in zip(OPTIONS, others, strict=True)
    }
    in_turns(lambda: usual.patch_features(images, size), rivals, rounds=5)


@pytest.mark.parametrize("classes", [20, 150, 1000])
def test_labels(in_turns: Callable[..., None], classes: int) -> None:
    """From 28×28 patch scores to labels at 448×448."""
    scores = torch.randn(classes, 28, 28, generator=torch.Generator().manual_seed(0)) * 0.02
    array, size = scores.numpy(), (448, 448)
    ours, _ = NumpyDecoder().labels(array, classes, size, 100.0, 0.0)
    theirs, _ = KernelDecoder().labels(scores, classes, size, 100.0, 0.0)
    assert (ours == theirs).mean() > 0.9999
    rivals = {"engine": lambda: KernelDecoder().labels(scores, classes, size, 100.0, 0.0)}
    in_turns(lambda: NumpyDecoder().labels(array, classes, size, 100.0, 0.0), rivals, rounds=7)
