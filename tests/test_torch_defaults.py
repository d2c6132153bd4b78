"""Whatever torch's default type and device are, a model is the same, and computes the same."""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from gem_fast.export import ExportOptions, export_onnx
from gem_fast.export.exported_program import export_program

import gem_fast

PROMPTS, SETTINGS = ["car", "tree", "house"], {"size": 48}


@contextmanager
def default(dtype=torch.float32, device=None):
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device) if device else nullcontext():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def found(model, image):
    """Scores, labels, confidences and heat maps, of words that were not asked for before."""
    result = model.segment(image, PROMPTS, **SETTINGS)
    return result.scores, result.labels, result.confidence, result.heatmaps


# Another device than the one that computes: of it every tensor that is made without a device is useless.
DEFAULTS = [{"dtype": torch.float64}, {"dtype": torch.bfloat16}, {"device": "meta"}]


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"dtype": "int8", "backend": "sdpa"}], ids=str)
@pytest.mark.parametrize("defaults", DEFAULTS, ids=str)
def test_loading_and_segmenting(picture, defaults, options):
    usual = gem_fast.load("gem-tiny", **options)
    truth = found(usual, picture())
    with default(**defaults):
        other = gem_fast.load("gem-tiny", **options)
        results = [found(other, picture()), found(usual, picture())]
    assert other.weights_sha256 == usual.weights_sha256
    for result in results:
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(result, truth, strict=True))


def test_random_weights():
    digests = set()
    for defaults in ({}, *DEFAULTS):
        torch.manual_seed(0)
        with default(**defaults):
            digests.add(gem_fast.load("ViT-S-32-alt", "random").weights_sha256)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("export", "around"),
    [
        (export_onnx, lambda: default(torch.float64)),
        (export_onnx, lambda: default(device="meta")),
        (export_onnx, lambda: torch.autocast("cpu", torch.bfloat16)),
        (export_program, lambda: default(device="meta")),
    ],
    ids=["float64", "meta", "autocast", "program-meta"],
)
def test_exports(tmp_path, export, around):
    model, options = gem_fast.load("gem-tiny", gem_blocks=1), ExportOptions(sizes=((16, 24),))
    with around():
        manifest = export(model, tmp_path / "out", options)
    assert all(row.holds for row in manifest.check)
    assert torch.get_default_dtype() == torch.float32
