"""How far an exported output may be from the engine's, given what PyTorch alone loses."""

import math
from dataclasses import replace

import pytest

from gem_fast.runtime.agreement import Comparison

FOUND = Comparison("graph", "output", "96x96", 1, "noise", absolute=0.1, relative=1e-5, bound=1e-5, labels=0.9999)


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"relative": 1.1e-5}, False),
        ({"relative": math.nan}, False),
        ({"labels": 0.9998}, False),
        ({"labels": 0.9998, "least_labels": 0.9998}, True),
        ({"labels": None}, True),
    ],
    ids=str,
)
def test_a_bound_itself_holds(changes, holds):
    assert replace(FOUND, **changes).holds == holds


@pytest.mark.parametrize(("relative", "bound"), [(0.0, 1e-5), (4e-6, 1e-5), (3e-3, 6e-3)])
def test_bounds_are_twice_what_torch_loses_and_never_closer(relative, bound):
    assert FOUND.loosened(replace(FOUND, relative=relative)).bound == pytest.approx(bound)


@pytest.mark.parametrize(("labels", "least"), [(None, 0.9999), (1.0, 0.998), (0.99, 0.978)])
def test_labels_may_turn_twice_as_often_and_a_few_near_ties(labels, least):
    assert FOUND.loosened(replace(FOUND, labels=labels)).least_labels == pytest.approx(least)
