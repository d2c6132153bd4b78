"""How far lower types are from float32: nothing from itself, and a rounding in bfloat16."""

import gem_fast
from gem_fast.evaluation.scenes import load_scenes
from tools.agreement import agreement


def test_against_itself_and_in_bfloat16():
    exact, scenes = gem_fast.load("gem-tiny"), load_scenes()[:4]
    assert agreement(exact, exact, scenes) == (0.0, 1.0)
    error, labels = agreement(gem_fast.load("gem-tiny", dtype="bfloat16"), exact, scenes)
    assert 1e-4 < error < 0.02
    assert 0.98 < labels <= 1
