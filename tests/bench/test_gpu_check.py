"""`make gpu-check` but for the GPU: verdicts, turns, the table, the file, the exit status."""

import functools
import io
import itertools
import json
import math
import multiprocessing
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from gem_fast.bench.gpu_check import __main__ as command
from gem_fast.bench.gpu_check import attention, forward
from gem_fast.bench.gpu_check import run as running
from gem_fast.bench.gpu_check.cases import Case, Problem
from gem_fast.bench.gpu_check.decoding import regret
from gem_fast.bench.gpu_check.fences import BAND, Fences, fenced
from gem_fast.bench.gpu_check.timing import Timed, Turns, in_turns, told
from gem_fast.bench.gpu_check.verify import FAILED, FLOOR, RIGHT, SKIPPED, WRONG, error_of, verify
from gem_fast.bench.records import read_document, read_rows
from gem_fast.kernels.decoding.reference import labels_reference
from rich.console import Console

from tests.interpreted import run_cases

CPU = torch.device("cpu")


def test_kernels_in_the_interpreter(tmp_path):
    run_cases(tmp_path, Path(__file__).parent / "cases_gpu_check.py")


def out_of_memory():
    raise torch.OutOfMemoryError("out of memory\nwith details")


def unwritten(truth):
    """A kernel that forgets the last row."""
    out = torch.empty(truth.shape)
    out[:-1] = truth[:-1]
    return out


def doubling(*, ours, rivals=()):
    """x · 2, where plain torch is off by 1e-3."""
    truth = 2 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = 1.001 * truth
    return Problem(
        ours={name: functools.partial(call, truth) for name, call in ours.items()},
        rivals={name: functools.partial(call, truth) for name, call in dict(rivals).items()},
        truth=lambda: {"out": truth},
        plain=lambda: {"out": plain},
    )


def off(share):
    return lambda truth: truth * (1 + share)


def one_row_off(truth):
    out = truth.clone()
    out[7] += 0.05
    return out


@pytest.mark.parametrize(
    ("call", "verdict", "told"),
    [
        (off(0.0), RIGHT, ""),
        (off(1.9e-3), RIGHT, ""),
        (off(2.1e-3), WRONG, "off by 2.1e-03, and 2.0e-03 is allowed"),
        (one_row_off, WRONG, "off"),
        (lambda truth: truth.index_fill(0, torch.tensor([3]), torch.nan), WRONG, "not finite"),
        (lambda truth: truth / 0, WRONG, "not finite"),
        (lambda truth: truth[1:], WRONG, "another shape"),
        (unwritten, WRONG, "not finite"),
        (lambda truth: out_of_memory(), FAILED, "OutOfMemoryError: out of memory"),
    ],
    ids=["exact", "allowed", "off", "one-row", "nan", "inf", "shape", "unwritten", "raises"],
)
def test_verdicts(call, verdict, told):
    checks = verify(doubling(ours={"it": call, "other": off(0.0)}, rivals={"rival": off(0.0)}))
    assert [check.verdict for check in checks] == [verdict, RIGHT, RIGHT]
    assert told in checks[0].reason
    assert "details" not in checks[0].reason
    assert [check.ours for check in checks] == [True, True, False]


def writing_past(allocate, row):
    """A kernel that writes a row past the end, or before the start, of what it allocated."""

    def call(truth):
        out = allocate(truth)
        out.copy_(truth)
        torch.as_strided(out, (8,), (1,), out.storage_offset() + 8 * row).fill_(0.0)
        return out

    return call


@pytest.mark.parametrize("row", [-1, 50, 57])
@pytest.mark.parametrize(
    "allocate",
    [
        lambda like: torch.empty(like.shape, dtype=like.dtype),
        torch.empty_like,
        lambda like: like.new_empty(like.shape),
    ],
    ids=["empty", "empty_like", "new_empty"],
)
def test_a_kernel_that_writes_past_an_end_is_told(allocate, row):
    checks = verify(doubling(ours={"it": writing_past(allocate, row), "fine": writing_past(allocate, 0)}))
    assert (checks[0].verdict, checks[0].reason) == (WRONG, "memory past an end was written")
    assert checks[1].reason.startswith("out is off")  # the row is its own, so only the values are wrong


def test_inputs_lie_between_bands_of_nan():
    for shift in (0, 1):
        inner = fenced(torch.ones(3, 5), shift)
        whole = torch.as_strided(inner, (2 * BAND + 15,), (1,), 0)
        assert whole.isnan().sum() == 2 * BAND
        assert inner.storage_offset() == BAND + shift
    with Fences() as fences:
        numbers = torch.empty(4, dtype=torch.int64)
    assert (numbers == torch.iinfo(torch.int64).max).all()
    assert not fences.broken()


def test_bits_that_change_from_run_to_run_are_told():
    runs = itertools.count()
    problem = doubling(ours={"racing": lambda truth: truth * (1 + 1e-12 * (next(runs) == 3)), "fine": off(0.0)})
    checks = verify(problem, repeats=5)
    assert [check.reason for check in checks] == ["run again, it gives other bits", ""]
    runs = itertools.count()
    assert [check.verdict for check in verify(problem, repeats=2)] == [RIGHT, RIGHT]


def test_another_way_to_make_a_call_has_to_give_the_same():
    def fails(call):
        raise RuntimeError("can't be captured\nbecause")

    ways = {"on another stream": lambda call: lambda: call() + 0.0, "as a replayed graph": fails}
    checks = verify(doubling(ours={"it": off(0.0)}), repeats=1, ways=ways)
    assert checks[0].reason == "as a replayed graph: RuntimeError: can't be captured"


def test_one_bad_row_of_many_shows_in_the_worst_only():
    truth = torch.ones(100_000, 4)
    result = truth.clone()
    result[-1] = 2
    error = error_of(result, truth)
    assert error.mean == pytest.approx(100_000**-0.5)
    assert error.worst == pytest.approx(1)
    assert error_of(torch.full((3, 1), 1e-3), torch.zeros(3, 1)).mean == pytest.approx(1e-3)


def test_turns_alternate_and_who_fails_is_out():
    order, numbers = [], itertools.count()

    def call(name):
        order.append(name)
        if name == "b" and next(numbers) == 3:
            out_of_memory()

    def clock(call):
        call()
        return 0.1

    names = ("a", "b", "c")
    times = in_turns({name: functools.partial(call, name) for name in names}, clock, Turns(budget=1.6, least=2))
    assert times["a"] == times["c"] == (0.1,) * 5
    assert times["b"] == "OutOfMemoryError: out of memory"
    assert order == list("aabbccabcbcacaacca")


def test_regret_is_what_a_label_lacks_in_float64():
    scores = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)) * 0.03 + 0.2
    settings = {"logit_scale": 100.0, "threshold": 0.5}
    labels, confidence = labels_reference(scores.double(), (9, 11), **settings)
    assert 0 < (labels == 0).sum() < labels.numel()
    assert regret(labels, scores, **settings).max() < 1e-12
    assert regret(torch.where(labels == 0, 1, labels), scores, **settings)[labels == 0].min() > 0
    assert regret(torch.where(labels > 0, labels % 5 + 1, 0), scores, **settings)[labels > 0].min() > 0
    assert regret(torch.zeros_like(labels), scores, **settings)[confidence > 0.51].min() > 0
    assert regret(torch.full_like(labels, 6), scores, **settings).isinf().all()


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_the_engine_is_held_against_eager_float64(kind):
    """On a backend that runs here; a wrong one is told."""
    with torch.inference_mode():
        problem = forward.forward_problem("ViT-S-32-alt", 3, 64, kind, CPU, checked="cpu")
        checks = {check.provider: check.verdict for check in verify(problem)}
        assert checks == dict.fromkeys(("engine on cpu", "engine on sdpa", "eager"), RIGHT)
        wrong = problem.ours["engine on cpu"]
        problem.ours["engine on cpu"] = lambda: wrong().roll(1, dims=1)
        assert verify(problem)[0].verdict == WRONG


def test_gem_tiny_is_held_against_float64(monkeypatch):
    monkeypatch.setattr(forward, "SIDE", 40)
    with torch.inference_mode():
        problem = forward.labels_problem("bfloat16", CPU, checked="cpu")
        checks = verify(problem)
        assert {check.verdict for check in checks} == {RIGHT}
        assert checks[0].errors["scores"].mean > FLOOR.mean
        results = problem.ours["engine on cpu"]()
        swapped = [(scores, (labels % len(scores)) + 1, sure) for scores, labels, sure in results]
        problem.ours["engine on cpu"] = lambda: swapped
        assert "regret" in verify(problem)[0].reason


def timer(calls):
    """Every call takes a millisecond."""
    return {name: told(seconds) for name, seconds in in_turns(calls, lambda call: call() is None or 1e-3).items()}


def check_all(tmp_path, *cases, timer=timer, until=math.inf, processes=1):
    """Exit status, what was printed and the file's content."""
    text, said = io.StringIO(), []
    rules, timing = running.Rules(CPU, 1, {}, processes), running.Timing(timer, until) if timer else None
    status = command.check_all(cases, rules, timing, tmp_path / "c.json", Console(file=text, width=80), said.append)
    return status, text.getvalue(), read_document(tmp_path / "c.json"), said


def case(name, **calls):
    return Case(name, "50 × 8", "float32", lambda device: doubling(**calls))


def test_the_rest_goes_on_after_one_that_is_wrong_and_one_that_cannot_be_built(tmp_path):
    def unbuilt(device):
        raise ValueError("Triton can't serve this")

    ours = {"wrong": off(0.1), "fine": off(0.0), "infinite": lambda truth: truth / 0}
    wrong = case("labels", ours=ours, rivals={"rival": lambda _: out_of_memory()})
    right = case("heatmaps", ours={"triton": off(0.0)}, rivals={"torch": off(1e-3)})
    status, text, content, told = check_all(tmp_path, wrong, Case("forward", "any", "bfloat16", unbuilt), right)
    assert status == 1
    assert len(told) == 3
    for words in (
        "WRONG",
        "can't serve this",
        "3 of 5 checks of kernels are wrong or failed",
        "c.json",
        "out of memory",
    ):
        assert words in text
    figures = {row.name: row.seconds for row in read_rows(content)}
    assert set(figures) == {
        f"{c} 50 × 8 float32 {p}" for c, p in (("labels", "fine"), ("heatmaps", "triton"), ("heatmaps", "torch"))
    }
    assert figures["heatmaps 50 × 8 float32 torch"] == (1e-3,) * 50
    verdicts = [(check["provider"], check["verdict"]) for check in content["gem_fast"]["checks"]]
    assert verdicts[:4] == [("wrong", WRONG), ("fine", RIGHT), ("infinite", WRONG), ("rival", FAILED)]
    assert content["gem_fast"]["checks"][0]["errors"]["out"]["mean"] == pytest.approx(0.1)
    json.dumps(content, allow_nan=False)


def test_a_rival_that_fails_is_no_failure(tmp_path):
    fine = case("labels", ours={"triton": off(0.0)}, rivals={"rival": lambda _: out_of_memory(), "poor": off(0.5)})
    status, text, *_ = check_all(tmp_path, fine)
    assert (status, "0 of 1 checks" in text) == (0, True)


def test_a_reference_that_does_not_fit_is_no_failure(tmp_path):
    def too_large(device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    status, text, content, _ = check_all(tmp_path, Case("self_self", "huge", "float32", too_large))
    assert (status, content["gem_fast"]["checks"][0]["verdict"]) == (0, SKIPPED)
    assert "no reference: OutOfMemoryError" in text


def test_all_is_verified_before_anything_is_timed_and_kept_after_each(tmp_path):
    steps, kept = [], []

    def followed(calls):
        steps.append("timed")
        kept.append(len(read_document(tmp_path / "c.json")["gem_fast"]["checks"]))
        return {name: Timed((1e-3,), 1e-5) for name in calls}

    cases = [case(name, ours={"it": lambda truth: (steps.append("ran"), truth)[1]}) for name in ("labels", "heatmaps")]
    check_all(tmp_path, *cases, timer=followed)
    assert steps == ["ran"] * 4 + ["timed"] * 2  # once, and once more for its bits
    assert kept == [2, 2]
    _, _, content, _ = check_all(tmp_path, *cases, timer=None)
    assert not content["benchmarks"]
    check_all(tmp_path, *(replace(each, timed=False) for each in cases), timer=followed)
    assert steps[6:] == ["ran"] * 8


def test_when_time_is_over_all_is_verified_and_the_rest_is_not_timed(tmp_path, monkeypatch):
    names = ("self_self", "labels", "forward")
    cases = [case(name, ours={"triton": off(0.0)}) for name in names]
    now = iter([9.0, 11.0])
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: next(now)))
    status, text, content, told = check_all(tmp_path, *cases, until=10.0)
    assert (status, "0 of 3 checks" in text) == (0, True)
    assert "the first 2 cases are verified but not timed" in told[-1]
    checks = {check["kernel"]: (check["verdict"], check["median_s"]) for check in content["gem_fast"]["checks"]}
    assert checks == {"self_self": (RIGHT, None), "labels": (RIGHT, None), "forward": (RIGHT, 1e-3)}


@pytest.mark.parametrize(
    ("given", "seconds"), [([], 570), (["--quick"], 165), (["--quick", "--within", "5"], 5), (["--within", "0"], 0)]
)
def test_how_long_it_may_take(given, seconds):
    assert command.arguments(given).within == seconds


def test_after_the_device_is_lost_nothing_is_called_right(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_answers", lambda device: False)
    fatal = case("labels", ours={"triton": lambda _: out_of_memory()})
    status, text, content, _ = check_all(tmp_path, fatal, case("heatmaps", ours={"triton": off(0.0)}))
    assert status == 1
    assert "not run: the device was lost in labels" in text
    assert not content["benchmarks"]


def beside(name, device):
    """A case's problem as a process beside others finds it."""
    if name == "ends":
        os._exit(1)
    if name == "no room" and multiprocessing.parent_process():
        out_of_memory()
    return doubling(ours={"triton": off(0.1 * (name == "wrong"))})


def case_beside(name):
    return Case(name, "50 × 8", "float32", functools.partial(beside, name))


def test_processes_verify_and_what_had_no_room_is_verified_again_alone(tmp_path):
    names = ("no room", "right", "wrong")
    status, _, content, _ = check_all(tmp_path, *map(case_beside, names), processes=2)
    found = [(each["kernel"], each["verdict"], bool(each["median_s"])) for each in content["gem_fast"]["checks"]]
    assert found == [("no room", RIGHT, True), ("right", RIGHT, True), ("wrong", WRONG, False)]
    assert status == 1


def test_a_process_that_ends_is_told_and_nothing_is_called_right_after_it(tmp_path):
    status, text, content, _ = check_all(tmp_path, case_beside("ends"), processes=2)
    assert (status, content["gem_fast"]["checks"][0]["verdict"]) == (1, FAILED)
    assert "ends 50 × 8 float32, all: failed, its process ended" in text


@pytest.mark.parametrize("quick", [True, False])
def test_cases_go_to_other_processes(quick):
    for each in command.all_cases(CPU, quick):
        assert str(pickle.loads(pickle.dumps(each))) == str(each)


def test_every_kernel_has_cases_in_every_type():
    for quick in (True, False):
        cases = list(command.all_cases(CPU, quick))
        assert {case.kernel for case in cases} == set(command.KERNELS)
        for kernel in command.KERNELS:
            assert {case.kind for case in cases if case.kernel == kernel} == {"bfloat16", "float16", "float32"}
        assert len({str(case) for case in cases}) == len(cases)
    widths = {shape[3] for shape in (attention.TOWERS | attention.WIDTHS).values()}
    assert widths == {32, 64, 80, 88, 96, 104, 128}


def test_without_a_gpu_it_says_so(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def init():
        raise RuntimeError("The NVIDIA driver on your system is too old")

    for given, said in (([], "driver on your system is too old"), (["--device", "cpu"], "cpu is none")):
        monkeypatch.setattr(torch.cuda, "init", init)
        assert command.main(given) == 2
        error = capsys.readouterr().err
        assert "needs a CUDA or ROCm device" in error
        assert said in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "told"), [(["--only", "softmax"], "'softmax'.*self_self"), (["--json", "."], "is a folder"), (["x"], "x")]
)
def test_wrong_arguments_are_named(given, told, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(given)
    assert re.search(told, capsys.readouterr().err)
