"""The regression gate over sides that are invented, clocks included; `test_gate_sides.py` has real ones."""

import itertools
import json
from math import comb

import numpy as np
import pytest
from gem_fast.bench.gate import __main__ as command
from gem_fast.bench.gate import verdict as gating
from gem_fast.bench.gate.checkout import Checkout
from gem_fast.bench.gate.operations import Operation
from gem_fast.bench.gate.verdict import Series, Verdict, confirmed, gate
from gem_fast.bench.processes import Answer, ProviderError
from gem_fast.bench.providers import Provider

RESULT = np.arange(1.0, 5.0, dtype=np.float32)
ANY = [Operation("any", lambda: None, 1e-5)]


class InventedProcess:
    """A process of a side whose calls take a known time, times the noise of the machine in that turn."""

    provider, resting_mb = Provider("invented", "checkout"), None

    def __init__(self, seconds, noise, *, result=RESULT, missing=None, error=None):
        self.seconds, self.noise, self.result = seconds, noise, result
        self.error = ProviderError(missing, lacks=True) if missing else error and ProviderError(error)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def forward(self, pixels=None, *, calls=1, answer=False):
        if self.error:
            raise self.error
        if pixels is not None:  # what warms up is not timed
            return Answer((self.seconds,) * calls, None, self.result if answer else None)
        return Answer((self.seconds * next(self.noise),) * calls, None, None)


def invented(seconds, *, noise=None, biases=(), **settings):
    """Opens processes of a side; `biases` slow each as it starts. Tells how many were opened."""
    opened = itertools.count()

    def open_process(operation):
        number = next(opened)
        slowed = seconds * (biases[number] if number < len(biases) else 1.0)
        return InventedProcess(slowed, noise or itertools.repeat(1.0), **settings)

    open_process.opened = opened
    return open_process


def verdict_of(base=0.1, tree=0.1, *, seed=0, spread=0.1, biases=(), tolerance=0.05, **of_tree):
    """A verdict on sides under lognormal noise, and the pairs of processes that it took."""
    generator = np.random.default_rng(seed)
    noise = (float(np.exp(spread * generator.standard_normal())) for _ in itertools.count())
    sides = invented(base, noise=noise), invented(tree, noise=noise, biases=biases, **of_tree)
    (found,) = gate(*sides, ANY, tolerance, pause=0.0)
    return found, next(sides[1].opened)


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
    assert verdict_of(tree=0.106, spread=0.0, tolerance=0.1)[0].status == "same"
    assert verdict_of(tree=0.05, spread=0.0)[0].status == "faster"


def test_a_suspect_is_measured_again_by_new_processes():
    unlucky, pairs = verdict_of(spread=0.01, biases=(1.2,))
    assert (unlucky.status, pairs) == ("same", 1 + gating.PAIRS)
    assert unlucky.series.median > 1.1
    assert len(unlucky.again) == gating.PAIRS
    assert verdict_of(spread=0.01)[1] == 1
    # Not even two slow processes of three make a regression: the third is the same code.
    assert verdict_of(spread=0.01, biases=(1.2, 1.2, 1.2, 1.0))[0].status == "same"
    assert verdict_of(spread=0.01, biases=(1.2,) * 4)[0].status == "slower"


def test_what_breaks_when_measured_again_fails_and_the_others_keep_their_verdicts():
    """Operation `b` ends its process in the second pair that measures it again."""
    opened = []

    def tree(operation):
        opened.append(operation)
        error = "its process ended" if operation == "b" and opened.count("b") == 3 else None
        return InventedProcess(0.12, itertools.repeat(1.0), error=error)

    found = gate(invented(0.1), tree, [Operation(name, lambda: None, 1e-5) for name in "abc"], pause=0.0)
    assert [(verdict.status, len(verdict.again)) for verdict in found] == [("slower", 3), ("fails", 0), ("slower", 3)]
    assert found[1].reason == "its process ended"
    assert opened[:3] == list("abc")  # all have their first series before any has another


def test_outputs_must_agree_before_anything_is_timed():
    found, _ = verdict_of(result=RESULT + 0.01)
    assert (found.status, found.series, found.failed) == ("differs", None, True)
    assert found.distance == pytest.approx(0.02 / np.linalg.norm(RESULT), rel=1e-3)
    assert verdict_of(result=RESULT[:3])[0].status == "differs"


def test_what_the_tree_lacks_or_cannot_do_fails_and_what_the_base_lacks_is_new():
    assert verdict_of(error="it broke")[0] == Verdict("any", "fails", reason="it broke")
    assert "lacks it" in verdict_of(missing="no module")[0].reason
    bases = invented(0.1, missing="no module"), invented(0.1, error="it broke")
    found = [gate(base, invented(0.1), ANY, pause=0.0)[0] for base in bases]
    assert [(v.status, v.failed) for v in found] == [("new", False), ("not comparable", False)]


@pytest.mark.parametrize(("side", "status"), [("base", "not comparable"), ("tree", "fails")])
def test_a_side_that_breaks_in_its_turns_is_told(side, status):
    def noise():
        yield from (1.0, 1.0)
        raise ProviderError("out of memory")

    sides = {name: invented(0.1, noise=noise() if name == side else None) for name in ("base", "tree")}
    (found,) = gate(**sides, operations=ANY, pause=0.0)
    assert (found.status, found.reason, found.series) == (status, "out of memory", None)


def test_long_calls_have_fewer_turns_but_never_too_few():
    assert len(verdict_of(spread=0.0)[0].series.ratios) == gating.TURNS
    assert len(verdict_of(base=30.0, tree=30.0, spread=0.0)[0].series.ratios) == gating.FEWEST


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


def test_slower_is_what_all_turns_and_each_pair_say():
    """One of the two alone is not enough: pairs whose turns scatter, or turns of which one pair's say otherwise."""
    scattered = [Series((1.2,) * 4 + (0.9,) * 3)] * 3
    assert all(series.median > 1.05 for series in scattered)
    assert not confirmed(scattered, 0.05)
    slow, equal = Series((1.2,) * 11), Series((1.0,) * 4 + (1.2,) * 3)
    together = Series(slow.ratios * 2 + equal.ratios)
    assert together.low(0.01) > 1.05 > equal.median
    assert not confirmed([slow, slow, equal], 0.05)
    assert confirmed([slow, slow, slow], 0.05)


def test_the_command_tells_and_writes_what_failed(monkeypatch, tmp_path, capsys):
    sides = [Checkout(name, letter * 40, tmp_path) for name, letter in (("main", "a"), ("working tree", "b"))]
    monkeypatch.setattr(command, "install", lambda base, folder: sides)
    verdicts = {"reading a JPEG": "slower", "text, 16 prompts": "same"}

    def invented_gate(base, tree, operations, tolerance, tell):
        series = Series((1.2,) * 7)
        return [Verdict(o.name, verdicts[o.name], series, (series,), seconds=(1.0, 1.2)) for o in operations]

    monkeypatch.setattr(command, "gate", invented_gate)
    path = tmp_path / "gate.json"
    assert command.main(["--only", "JPEG", "--only", "text", "--json", str(path)]) == 1
    assert "failed: reading a JPEG\n" in capsys.readouterr().out
    content = json.loads(path.read_text())
    assert content["failed"] == ["reading a JPEG"]
    assert content["operations"][0]["again"][0]["ratios"] == [1.2] * 7
    assert command.main(["--only", "text"]) == 0
    for wrong, told in (
        (["--only", "nothing of the kind"], "there are: self-self"),
        (["--tolerance", "-1"], "0 or more"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command.main(wrong)
        assert told in capsys.readouterr().err
