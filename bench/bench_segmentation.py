"""From a folder of images to files of labels: the engine against the runtime without torch."""

import functools
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gem_fast.bench.turns import Work
from gem_fast.export import ExportOptions, export_onnx
from PIL import Image

import gem_fast
from gem_fast.images import load_image
from gem_fast.runtime import GemRuntime

WORDS = "cat dog sunflower rocket apple banana umbrella elephant car tree house gift"


def make_models(name: str, folder: Path) -> dict[str, Any]:
    """The engine, and the runtime on its export, of one set of weights; open_clip's are random."""
    engine = gem_fast.load(name, None if name == "gem-tiny" else "random")
    export_onnx(engine, folder / "exported", ExportOptions(check=False))
    return {"engine": engine, "runtime without torch": GemRuntime(folder / "exported", threads=torch.get_num_threads())}


@pytest.mark.parametrize(
    ("name", "count", "rounds"),
    [("gem-tiny", 9, 5), ("ViT-B-16", 4, 3), pytest.param("ViT-B-16", 9, 3, marks=pytest.mark.full)],
)
def test_folder(in_turns: Callable[..., Any], tmp_path: Path, name: str, count: int, rounds: int) -> None:
    """Sample images to overlays, labels and legends; words are encoded beforehand, in the call that checks labels.

    What checks them has the model's size already: the runtime resizes by Pillow, the engine by torch.
    """
    models = make_models(name, tmp_path)
    with as_file(files("gem_fast") / "samples") as samples:
        images = sorted(path for path in samples.iterdir() if path.suffix in (".png", ".jpg"))[:count]
        size = models["engine"].defaults.size
        squares = [tmp_path / f"{path.stem}.png" for path in images]
        for path, square in zip(images, squares, strict=True):
            load_image(path).resize((size, size)).save(square)

        def segment(provider: str, images: list[Path]) -> list[Any]:
            settings: dict[str, Any] = {"size": size, "resize": "squash", "threshold": 0.0, "overwrite": True}
            outcome = gem_fast.segment_files(models[provider], images, WORDS.split(), tmp_path / provider, **settings)
            return list(gem_fast.records(outcome.summary))

        found = {
            provider: [read_labels(tmp_path / provider, r) for r in segment(provider, squares)] for provider in models
        }
        for one, other in zip(*found.values(), strict=True):
            assert (one == other).mean() >= 0.999  # random weights leave near ties
        providers = {provider: functools.partial(segment, provider, images) for provider in models}
        # ONNX Runtime keeps its memory from the first call on: what a later one adds says nothing.
        in_turns(providers, rounds=rounds, work=Work(images=count), added_mb={"runtime without torch": None})


def read_labels(folder: Path, record: Any) -> np.ndarray:
    assert record.status == "ok", record.error
    return np.asarray(Image.open(folder / record.files["labels"]))
