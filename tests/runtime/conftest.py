"""The runtime resizes with Pillow, the engine with torch: what is compared here is all else."""

import pytest

from gem_fast.model import GemModel
from gem_fast.segmenter import Segmenter


@pytest.fixture(autouse=True)
def _one_resize(monkeypatch):
    monkeypatch.setattr(GemModel, "resized", Segmenter.resized)
