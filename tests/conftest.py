"""What several tests share: a small model with random weights, and pictures."""

import os
import sys
from dataclasses import replace

# Read when torch is loaded: threads that wait for others take no core from the test beside.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
import torch
from PIL import Image

import gem_fast

SMALL = "ViT-S-32-alt"


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def threads():
    """Set torch's number of threads; it is what it was afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _own_compilations():
    """Dynamo limits the recompilations of all tests of a process together: each leaves none behind."""
    yield
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is not None and dynamo.counters["stats"]:
        torch._dynamo.reset()
        dynamo.counters.clear()


@pytest.fixture(scope="session")
def small_model():
    """The first three blocks of the cheapest model that open_clip names, seeded; segment with size=64 or 96.

    Its words lie close together: the scale is one at which images have classes and background.
    """
    torch.manual_seed(0)
    model = gem_fast.load(SMALL, "random", gem_blocks=2)
    model.vision.config = replace(model.vision.config, layers=3)
    model.vision.blocks = model.vision.blocks[:3]
    return replace(model, defaults=replace(model.defaults, logit_scale=1000.0))


@pytest.fixture(scope="session")
def picture():
    """A function (height, width, seed) -> smooth, colourful RGB image."""

    def make(height=48, width=64, seed=0):
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    return make


@pytest.fixture
def folder(tmp_path, picture):
    """A folder of three images: a.png, b.jpg and sub/c.png."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.jpg", "sub/c.png")):
        picture(40 + 8 * seed, 64, seed).save(root / name)
    return root
