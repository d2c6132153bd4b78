"""The torch-free runtime: what its options cost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gem_fast.bench.turns import Work
from gem_fast.export import ExportOptions, export_onnx
from gem_fast.export.comparison import relative_error

import gem_fast
from gem_fast.runtime import GemRuntime


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ViT-B/16 with random weights as it was exported."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runtime") / "exported"
    export_onnx(gem_fast.load("ViT-B-16", "random"), folder, ExportOptions(check=False))
    return folder


OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "no arena": {"arena": False},
    "no prepacking": {"prepacking": False},
    "extended": {"optimization": "extended"},
    "basic": {"optimization": "basic"},
    "1 thread": {"threads": 1},
}


@pytest.mark.full
def test_options(in_turns: Callable[..., Any], exported: Path) -> None:
    """Patch features of one image, with each option changed in turn."""
    size = (448, 448)
    # Of the model's own size, so that resizing takes no part.
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    images = noise[None]
    models = {name: GemRuntime(exported, verify=False, **chosen) for name, chosen in OPTIONS.items()}
    found = {name: model.patch_features(images, size).numpy() for name, model in models.items()}
    for name, features in found.items():
        assert relative_error(features, torch.from_numpy(found["usual"])) <= 2e-6, name
    providers = {name: lambda model=model: model.patch_features(images, size) for name, model in models.items()}
    in_turns(providers, rounds=5, work=Work(images=1), added_mb=dict.fromkeys(models))
