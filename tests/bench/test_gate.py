"""The regression gate over sides that are invented, clocks included; `test_gate_sides.py` has real ones."""

import itertools
import json
from contextlib import contextmanager
from math import comb

import numpy as np
import pytest
import torch
from gem_fast.bench.gate import __main__ as command
from gem_fast.bench.gate.checkout import Checkout
from gem_fast.bench.gate.operations import Operation
from gem_fast.bench.gate.turns import Plan, Prepared, gate
from gem_fast.bench.gate.verdict import Series, Verdict, confirmed
from gem_fast.bench.gate.worker import Worker
from gem_fast.bench.processes import ProviderError

PLAN = Plan(pause=0.0)
RESULT = np.arange(1.0, 5.0, dtype=np.float32)


class InventedSide:
    """A side whose calls take a known time, times the noise of the machine in that turn."""

    def __init__(self, seconds, noise, *, result=RESULT, missing=None, error=None):
        self.seconds, self.noise = seconds, noise
        self.prepared = Prepared(seconds, None if missing else result, missing)
        self.error = error

    def prepare(self, operation):
        if self.error:
            raise ProviderError(self.error)
        return self.prepared

    def time(self, calls):
        return self.seconds * next(self.noise)


def verdict_of(base=0.1, tree=0.1, *, seed=0, spread=0.1, biases=(), plan=PLAN, **of_tree):
    """A verdict on sides under lognormal noise; `biases` slow the tree's process of each pair as it starts."""
    generator = np.random.default_rng(seed)
    noise = (float(np.exp(spread * generator.standard_normal())) for _ in itertools.count())
    opened = itertools.count()

    @contextmanager
    def open_pair():
        number = next(opened)
        bias = biases[number] if number < len(biases) else 1.0
        yield InventedSide(base, noise), InventedSide(tree * bias, noise, **of_tree)

    (found,) = gate(open_pair, [Operation("any", lambda: None, 1e-5)], plan)
    return found, next(opened)


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.2, 0.5])
def test_equal_sides_pass_however_noisy_the_machine_is(spread):
    assert not any(verdict_of(seed=seed, spread=spread)[0].failed for seed in range(200))


@pytest.mark.parametrize(("factor", "spread"), [(1.15, 0.02), (1.3, 0.1), (2.0, 0.3)])
def test_a_side_that_is_slower_beyond_the_noise_is_caught(factor, spread):
    found = [verdict_of(tree=0.1 * factor, seed=seed, spread=spread)[0] for seed in range(100)]
    assert sum(verdict.status == "slower" for verdict in found) >= 95
    assert found[0].series.median == pytest.approx(factor, rel=0.2)


def test_what_is_within_the_tolerance_is_no_regression():
    assert verdict_of(tree=0.104, spread=0.0)[0].status == "same"
    assert verdict_of(tree=0.106, spread=0.0)[0].status == "slower"
    assert verdict_of(tree=0.106, spread=0.0, plan=Plan(tolerance=0.1, pause=0.0))[0].status == "same"
    assert verdict_of(tree=0.05, spread=0.0)[0].status == "faster"


def test_a_suspect_is_measured_again_by_new_processes():
    unlucky, pairs = verdict_of(spread=0.01, biases=(1.2,))
    assert (unlucky.status, pairs) == ("same", 1 + PLAN.pairs)
    assert unlucky.series.median > 1.1
    assert len(unlucky.again) == PLAN.pairs
    assert verdict_of(spread=0.01)[1] == 1
    # Not even two slow processes of three make a regression: the third is the same code.
    assert verdict_of(spread=0.01, biases=(1.2, 1.2, 1.2, 1.0))[0].status == "same"
    assert verdict_of(spread=0.01, biases=(1.2,) * 4)[0].status == "slower"


def test_what_breaks_when_measured_again_fails_and_the_others_keep_their_verdicts():
    """Operation `b` ends its process in the second pair: the rest of that pair's suspects get another one."""
    opened = itertools.count()

    class Tree(InventedSide):
        def prepare(self, operation):
            if operation == "b" and self.pair == 1:
                self.error = "its process ended"
            return super().prepare(operation)

    @contextmanager
    def open_pair():
        tree = Tree(0.12, itertools.repeat(1.0))
        tree.pair = next(opened)
        yield InventedSide(0.1, itertools.repeat(1.0)), tree

    found = gate(open_pair, [Operation(name, lambda: None, 1e-5) for name in "abc"], PLAN)
    assert [(verdict.status, len(verdict.again)) for verdict in found] == [("slower", 3), ("fails", 0), ("slower", 3)]
    assert found[1].reason == "its process ended"
    assert next(opened) == 1 + PLAN.pairs + 1


def test_outputs_must_agree_before_anything_is_timed():
    found, _ = verdict_of(result=RESULT + 0.01)
    assert (found.status, found.series, found.failed) == ("differs", None, True)
    assert found.distance == pytest.approx(0.02 / np.linalg.norm(RESULT), rel=1e-3)
    assert verdict_of(result=RESULT[:3])[0].status == "differs"


def test_what_the_tree_lacks_or_cannot_do_fails_and_what_the_base_lacks_is_new():
    assert verdict_of(error="it broke")[0] == Verdict("any", "fails", reason="it broke")
    assert "lacks it" in verdict_of(missing="no module")[0].reason
    operation = [Operation("any", lambda: None, 1e-5)]

    @contextmanager
    def pair_of(base):
        yield base, InventedSide(0.1, itertools.repeat(1.0))

    (new,) = gate(lambda: pair_of(InventedSide(0.1, None, missing="no module")), operation, PLAN)
    (broken,) = gate(lambda: pair_of(InventedSide(0.1, None, error="it broke")), operation, PLAN)
    assert [(v.status, v.failed) for v in (new, broken)] == [("new", False), ("not comparable", False)]


def test_long_calls_have_fewer_turns_but_never_too_few():
    assert len(verdict_of(spread=0.0)[0].series.ratios) == PLAN.turns
    assert len(verdict_of(base=30.0, tree=30.0, spread=0.0)[0].series.ratios) == PLAN.fewest


@pytest.mark.parametrize("n", [7, 15, 33])
@pytest.mark.parametrize("doubt", [0.01, 0.05])
def test_the_bound_is_that_of_the_sign_test(n, doubt):
    """P(the r-th smallest of n lies above the median) is the chance of fewer than r below it."""
    series = Series(tuple(float(i) for i in range(n)))
    rank = int(series.low(doubt)) + 1
    chance = [sum(comb(n, k) for k in range(r)) / 2**n for r in (rank, rank + 1)]
    assert chance[0] <= doubt < chance[1]
    assert series.high(doubt) == n - rank


def test_too_few_turns_are_no_evidence():
    with pytest.raises(ValueError, match="3 turns are too few"):
        Series((2.0, 2.0, 2.0)).low(0.01)
    assert confirmed([Series((1.2,) * 7)] * 2, 0.05)
    with pytest.raises(ValueError, match="tolerance must be 0 or more"):
        Plan(tolerance=-1)


def test_a_worker_times_calls_by_its_clock():
    now = [0.0]

    def make():
        def call():
            now[0] += 0.25
            return torch.tensor([1.0, 2.0], dtype=torch.bfloat16)

        return call

    def lacking():
        raise AttributeError("no attribute 'decode'")

    worker = Worker([Operation("any", make, 0.0), Operation("other", lacking, 0.0)], clock=lambda: now[0])
    with pytest.raises(ValueError, match="must be prepared"):
        worker.time({"calls": 1}, None)
    reply, result = worker.prepare({"operation": "any"}, None)
    assert reply == {"missing": None, "seconds": 0.25}
    assert (result.dtype, result.tolist()) == (np.float32, [1, 2])
    assert worker.time({"calls": 3}, None)[0]["seconds"] == 0.25
    assert now[0] == 1.25
    assert worker.prepare({"operation": "other"}, None)[0] == {"missing": "no attribute 'decode'"}


def test_the_command_tells_and_writes_what_failed(monkeypatch, tmp_path, capsys):
    sides = [Checkout(name, letter * 40, tmp_path) for name, letter in (("main", "a"), ("working tree", "b"))]
    monkeypatch.setattr(command, "install", lambda base, folder: sides)
    verdicts = {"reading a JPEG": "slower", "text, 16 prompts": "same"}

    def invented(open_pair, operations, plan, tell):
        series = Series((1.2,) * 7)
        return [Verdict(o.name, verdicts[o.name], series, (series,), seconds=(1.0, 1.2)) for o in operations]

    monkeypatch.setattr(command, "gate", invented)
    path = tmp_path / "gate.json"
    assert command.main(["--only", "JPEG", "--only", "text", "--json", str(path)]) == 1
    assert "failed: reading a JPEG\n" in capsys.readouterr().out
    content = json.loads(path.read_text())
    assert content["failed"] == ["reading a JPEG"]
    assert content["operations"][0]["again"][0]["ratios"] == [1.2] * 7
    assert command.main(["--only", "text"]) == 0
    assert command.main(["--only", "nothing of the kind"]) == 2
    assert command.main(["--tolerance", "-1"]) == 2
