"""Turns, checks and ratios, with forwards that need no model."""

import numpy as np
import pytest
from gem_fast.bench import measure
from gem_fast.bench.measure import Figure, Plan, distance, ratio
from gem_fast.bench.processes import ProviderProcess
from gem_fast.bench.providers import Provider

from .test_processes import FAKE, PIXELS, SUBJECT, fake

EXPECTED = PIXELS.reshape(3, 3, -1)[[0, -1], :2, :4].transpose(0, 2, 1)
REFERENCE = EXPECTED / np.linalg.norm(EXPECTED, axis=-1, keepdims=True)


def figure(*seconds, **rest):
    return Figure(Provider("x", "engine"), 1, 64, seconds, **rest)


def test_a_wrong_or_failing_provider_gets_no_figure_and_the_rest_do():
    with fake("right") as right, fake("wrong") as wrong, fake("fails") as fails, fake("slow") as slow:
        figures = measure.measure([right, wrong, fails, slow], PIXELS, REFERENCE, Plan(rounds=3))
    assert [len(f.seconds) for f in figures] == [3, 0, 0, 3]
    assert figures[0].refused is None
    assert figures[0].error < 1e-6
    assert "wrong output" in figures[1].refused
    assert "no memory for this" in figures[2].refused
    assert figures[3].median == pytest.approx(0.03)
    assert figures[0].peak_mb >= figures[0].resting_mb * 0.5
    assert ratio(figures[3].seconds, figures[0].seconds).low == pytest.approx(30)


def test_a_provider_whose_budget_is_spent_rests_and_its_turns_still_pair():
    with fake("right") as right, fake("slow") as slow:
        figures = measure.measure([slow, right], PIXELS, REFERENCE, Plan(rounds=6, budget=0.05))
    assert [len(f.seconds) for f in figures] == [2, 6]
    assert ratio(*(f.seconds for f in figures)).rounds == 2


def test_the_budget_counts_every_call_of_a_turn():
    """A turn of 3 calls takes 0.09 s, so that the second spends 0.15 s; its mean, 0.03 s, would leave time for five."""
    with fake("slow") as slow:
        (found,) = measure.measure([slow], PIXELS, REFERENCE, Plan(rounds=6, budget=0.15, calls=3))
    assert found.seconds == pytest.approx((0.03, 0.03))


def test_a_long_first_forward_counts_as_a_turn(monkeypatch):
    monkeypatch.setattr(measure, "LONG", 0.02)
    with fake("slow") as slow, fake("right") as right:
        figures = measure.measure([slow, right], PIXELS, REFERENCE, Plan(rounds=1))
    assert [len(f.seconds) for f in figures] == [1, 1]


@pytest.mark.parametrize(("kind", "forwards"), [("engine", 1), ("compiled", 2)])
def test_a_long_first_forward_is_repeated_only_where_it_compiled(monkeypatch, kind, forwards):
    monkeypatch.setattr(measure, "LONG", 0.02)
    asked = []
    with ProviderProcess(Provider("slow", kind, backend="slow"), SUBJECT, command=FAKE) as process:
        forward = process.forward
        monkeypatch.setattr(process, "forward", lambda *a, **b: asked.append(1) or forward(*a, **b))
        (found,) = measure.measure([process], PIXELS, REFERENCE, Plan(rounds=1))
    assert len(found.seconds) == 1
    assert len(asked) == forwards


def test_several_calls_make_one_turn():
    with fake("slow") as slow:
        (found,) = measure.measure([slow], PIXELS, REFERENCE, Plan(rounds=2, calls=3))
    assert found.seconds == pytest.approx((0.03, 0.03))


def test_what_must_agree_and_how_far_is_the_callers_choice():
    features = PIXELS.reshape(3, 3, -1)[:, :2, :4].transpose(0, 2, 1)
    features = features / np.linalg.norm(features, axis=-1, keepdims=True)
    one_off = features + np.array([0, 0.01, 0], np.float32)[:, None, None]  # neither the first nor the last
    with fake("right") as right:
        ends, every, loose = (
            measure.measure([right], PIXELS, reference, Plan(rounds=1, pause=0), **chosen)[0]
            for reference, chosen in (
                (one_off[[0, -1]], {}),
                (one_off, {"images": slice(None)}),
                (one_off, {"images": slice(None), "allowed": 0.1}),
            )
        )
    assert [found.refused is None for found in (ends, every, loose)] == [True, False, True]
    assert every.error == loose.error > 1e-3


def test_ratios_are_paired_by_turn():
    # Both slow down in the last turn, as on a machine that others use: the ratio does not notice.
    found = ratio((2.0, 2.2, 8.0), (1.0, 1.1, 4.0))
    assert (found.low, found.median, found.high) == pytest.approx((2, 2, 2))
    assert str(ratio((3.0,), (2.0, 2.0))) == "1.50× (one round)"


def test_distance_of_what_is_not_comparable_is_infinite():
    assert distance(np.ones((1, 2)), np.ones((1, 3))) == np.inf
    assert distance(np.array([1.0, np.nan]), np.ones(2)) == np.inf
    assert distance(np.array([0.0, 1.0]), np.array([0.0, 2.0])) == 0.5


def test_added_memory_is_what_a_forward_adds_to_the_weights():
    assert figure(resting_mb=100.0, peak_mb=340.0).added_mb == 240
    assert figure().added_mb is None
