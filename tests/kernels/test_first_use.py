"""The first use of Triton's kernels on a GPU, which stand-ins take the place of: they are held against plain torch."""

import json
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from gem_fast.kernels import first_use
from gem_fast.kernels.backends import Backend, Operation
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton")
HERE = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def gpu(monkeypatch, tmp_path):
    """A GPU by name, a home folder of its own, and nothing known yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(name=f"GPU {index}"))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(first_use, "_driver", lambda: "driver 1")
    monkeypatch.setattr(first_use, "_REAL", (Argument,))
    first_use.forget()
    yield
    first_use.forget()


class Argument:
    """What stands for a tensor on a GPU."""

    def __init__(self, device=HERE, dtype=torch.float32):
        self.device, self.dtype = device, dtype


def doubling(call, calls=None):
    """x · 2: a backend that is tried at its first use, and plain torch, which is off by 1e-4."""

    def run(x):
        if calls is not None:
            calls.append(threading.get_ident())
        return call(x)

    rows = (
        Backend("triton", run, trials=lambda *where: [(torch.arange(1.0, 9.0).view(2, 4),)]),
        Backend("sdpa", lambda x: 2 * x if x.dtype == torch.float64 else 2.0002 * x),
    )
    return Operation("doubling", rows, lambda dtype, device: ())


def taken(operation, argument=None, **options):
    return operation.choose(None, Argument() if argument is None else argument, **options).name


def right(x):
    return 2.0001 * x


def one_off(x):
    out = 2 * x
    out[1, 3] += 0.1
    return out


def fails(x):
    raise RuntimeError("out of resource: shared memory\nand more")


def test_what_is_right_is_taken_and_tried_once(tmp_path):
    calls = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert taken(doubling(right, calls)) == "triton"
        assert len(calls) == 1
        first_use.forget()  # as a new process: it reads what was found
        assert taken(doubling(fails, calls)) == "triton"
        assert len(calls) == 1
        assert taken(doubling(right, calls), Argument(dtype=torch.float16)) == "triton"
        assert taken(doubling(right, calls), Argument(torch.device("cuda", 1))) == "triton"
        assert len(calls) == 3
    (content,) = [
        json.loads(path.read_text()) for path in (tmp_path / "gem_fast").glob("first-use-gpu-0-triton-*.json")
    ]
    assert content["verdicts"] == {"doubling float32": "", "doubling float16": ""}
    assert len(list((tmp_path / "gem_fast").iterdir())) == 2
    assert next(first_use.describe(0)).startswith("2 kinds of calls found right at their first use, ")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (one_off, r"it is wrong: off by 3\.5e-03, and 2\.0e-04 is allowed"),
        (lambda x: x * torch.nan, "it is wrong: off by nan, and 2.0e-04 is allowed"),
        (lambda x: 2 * x[:1], r"it is wrong: a result is \[1, 4\] and not \[2, 4\]"),
        (fails, "it fails: out of resource: shared memory"),
    ],
)
def test_what_is_wrong_or_fails_is_named_and_plain_torch_serves(call, told):
    with pytest.warns(RuntimeWarning, match=rf"Triton's doubling in float32 is not used on GPU 0: {told}\. Plain"):
        assert taken(doubling(call)) == "sdpa"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once a process
        assert taken(doubling(call)) == "sdpa"
    assert doubling(call).choose("triton", Argument()).name == "triton"  # asked for by name
    first_use.forget()
    with pytest.warns(RuntimeWarning, match="is not used"):  # from the file
        assert taken(doubling(right)) == "sdpa"
    assert [line.split(":")[0] for line in first_use.describe(0)] == ["none used yet", "doubling float32"]


@pytest.mark.parametrize("changed", ["driver", "kernels", "file"])
def test_it_is_tried_again_where_something_changed(monkeypatch, tmp_path, changed):
    with pytest.warns(RuntimeWarning):
        assert taken(doubling(one_off)) == "sdpa"
    first_use.forget()
    if changed == "file":
        (path,) = (tmp_path / "gem_fast").iterdir()
        path.write_text("[1, 2")
    else:
        monkeypatch.setattr(first_use, f"_{changed}", lambda: "another")
    assert taken(doubling(right)) == "triton"


@pytest.mark.parametrize("place", ["top.py", "below/deep.py"])
def test_any_file_of_the_kernels_may_have_changed(monkeypatch, tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    monkeypatch.setattr(first_use, "__file__", str(tmp_path / "first_use.py"))
    found = [path.write_text(text) and first_use._kernels.__wrapped__() for text in ("one", "two", "one")]
    assert found[0] == found[2] != found[1]


def test_arguments_are_left_as_they_are_for_those_who_come_next():
    assert taken(doubling(lambda x: x.mul_(2.0001))) == "triton"


@pytest.mark.parametrize(("error", "name"), [(0.9e-5, "triton"), (1.1e-5, "sdpa")])
@pytest.mark.filterwarnings("ignore:Triton")
def test_where_plain_torch_is_exact_a_small_error_is_none(error, name):
    (triton, plain), example = doubling(lambda x: 2 * x.double() * (1 + error)).backends, lambda *_: ()
    exact = Operation("doubling", (triton, Backend(plain.name, lambda x: 2 * x)), example)
    assert taken(exact) == name


@pytest.mark.parametrize("multiplies", [True, False])
def test_tf32_is_a_kind_of_its_own_for_what_multiplies(monkeypatch, tmp_path, multiplies):
    """Its rounding is allowed for, though plain torch may take float32 exactly all the same."""
    (triton, plain), example = doubling(lambda x: 2.0005 * x).backends, lambda *_: ()
    triton = replace(triton, multiplies=multiplies, trials=lambda *_: [(torch.linspace(1, 2, 999),)])
    operation = Operation("doubling", (triton, replace(plain, run=lambda x: 2 * x)), example)
    monkeypatch.setattr(first_use, "tf32_is_allowed", lambda: True)
    if multiplies:
        assert taken(operation) == "triton"
        monkeypatch.setattr(first_use, "tf32_is_allowed", lambda: False)
    with pytest.warns(RuntimeWarning, match=r"doubling in float32 is not used .* off by 2\.5e-04, and 1\.0e-05 is"):
        assert taken(operation) == "sdpa"
    with FakeTensorMode():
        known = [operation.choose(None, Argument(), trust=first_use.not_known_wrong).name]
        monkeypatch.setattr(first_use, "tf32_is_allowed", lambda: True)
        known.append(operation.choose(None, Argument(), trust=first_use.not_known_wrong).name)
    assert known == ["sdpa", "triton" if multiplies else "sdpa"]


def test_trials_are_those_that_it_would_be_taken_for():
    (triton, plain), example = doubling(one_off).backends, lambda *_: ()
    for reasons in ({"why_not": lambda x: "it can't"}, {"pays": lambda x: False}):
        row = Backend("triton", triton.run, trials=triton.trials, **reasons)
        operation = Operation("doubling", (row, plain), example)
        assert first_use.why_wrong(operation, row, torch.float32, torch.device("cpu")) == ""


def test_without_a_folder_for_it_this_process_knows(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # nothing can be made below
    calls = []
    assert [taken(doubling(right, calls)) for _ in range(2)] == ["triton"] * 2
    assert len(calls) == 1


def test_nothing_is_run_beside_a_trace_or_a_capture(monkeypatch):
    def never(x):
        raise AssertionError("it was run")

    with FakeTensorMode():
        assert taken(doubling(never), torch.empty(2, device=HERE)) == "triton"
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert taken(doubling(never)) == "triton"
        patched.setattr(torch.compiler, "is_compiling", lambda: True)
        assert taken(doubling(never)) == "triton"
    assert taken(doubling(never), trust=first_use.not_known_wrong) == "triton"
    with pytest.warns(RuntimeWarning):
        assert taken(doubling(one_off)) == "sdpa"  # now it is
    first_use.forget()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert taken(doubling(never)) == taken(doubling(never), trust=first_use.not_known_wrong) == "sdpa"


def test_what_runs_out_of_memory_says_nothing(tmp_path):
    def too_large(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert taken(doubling(too_large)) == "triton"
    assert taken(doubling(right)) == "triton"
    assert next(first_use.describe(0)).startswith("1 kinds")


def test_threads_try_it_once():
    calls, begun = [], threading.Barrier(4)

    def first(_):
        begun.wait()
        return taken(doubling(right, calls))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(first, range(4))) == ["triton"] * 4
    assert len(calls) == 1
