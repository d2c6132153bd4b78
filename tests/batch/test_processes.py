"""Engines in processes of their own: the same bytes, and one that dies is named."""

import pickle
import subprocess
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gem_fast import segment_files
from gem_fast.batch import Progress, processes
from gem_fast.batch.processes import SUPPORTED, ProcessEngine
from gem_fast.batch.workers import EngineError, EngineGoneError, EngineStartError
from gem_fast.loading import all_of
from gem_fast.model import GemModel
from gem_fast.windows import Windows
from tests.batch.replicas import deadly, scores
from tests.batch.test_run import SETTINGS, leftovers, run

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="engines are processes on Linux")


def written(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture
def many(folder, picture):
    for i in range(9):
        picture(40, 50 + 10 * (i % 3), 10 + i).save(folder / f"d{i}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_processes_write_what_one_does(small_model, many, tmp_path):
    progress, pair = Progress(), replace(small_model, copies_on=("cpu", "cpu"))  # as two GPUs would be
    for name, model in (("threads", small_model), ("devices", pair)):
        segment_files(model, many, ["cat", "dog"], tmp_path / name, progress=progress, **SETTINGS)
        assert (progress.done, progress.failed) == (12, 1)
        assert not leftovers(tmp_path / name)
        progress.done = progress.failed = 0
    assert written(tmp_path / "threads") == written(tmp_path / "devices")


@pytest.mark.parametrize(("processes", "copies", "expected"), [(None, 1, 0), (1, 2, 0), (None, 3, 3), (2, 1, 2)])
def test_which_processes_there_are(small_model, many, tmp_path, monkeypatch, processes, copies, expected):
    started = []
    monkeypatch.setattr(ProcessEngine, "start", lambda self: started.append((self._device, self._threads)))
    monkeypatch.setattr(ProcessEngine, "__call__", lambda self, *batch: np.zeros((len(batch[0]), 1, 2, 2), np.float32))
    monkeypatch.setattr("gem_fast.batch.processes.cores", lambda: 6)
    model = replace(small_model, copies_on=tuple(f"cpu:{i}" for i in range(copies)))
    segment_files(model, many, "cat", tmp_path, processes=processes, **SETTINGS)
    assert sorted(started) == [(f"cpu:{i % copies}", 6 // expected) for i in range(expected)]


def test_cuda_without_a_number_is_all_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert all_of(torch.device("cuda")) == ("cuda:0", "cuda:1", "cuda:2")
    assert all_of(torch.device("cuda:1")) == ("cuda:1",)
    assert all_of(torch.device("cpu")) == ("cpu",)


@pytest.mark.parametrize("retries", [0, 1])
def test_an_image_that_kills_engines_is_named(small_model, many, tmp_path, monkeypatch, retries):
    Image.new("RGB", (50, 40), "white").save(many / "white.png")
    (tmp_path / "counts").mkdir()
    # It dies in a batch, or alone at once, and then alone; with a retry it may live the third time.
    replica = partial(deadly, tmp_path / "counts", 2 if retries else 100)
    monkeypatch.setattr(GemModel, "replica", lambda *_: replica)
    found = run(small_model, many, "cat", tmp_path / "out", processes=2, retries=2 * retries)
    failed = {Path(record.image).name: record.error for record in found if record.status == "failed"}
    assert failed.pop("broken.png")
    told = f"{many / 'white.png'}: ended its engine by SIGKILL, perhaps for want of memory"
    assert failed == ({} if retries else {"white.png": told})


def test_an_image_on_which_engines_hang_is_named(small_model, many, tmp_path, monkeypatch):
    Image.new("RGB", (50, 40), "white").save(many / "white.png")
    (tmp_path / "counts").mkdir()
    monkeypatch.setattr(processes, "_LEAST", 1.0)
    monkeypatch.setattr(GemModel, "replica", lambda *_: partial(deadly, tmp_path / "counts", 100, how="hang"))
    found = run(small_model, many, "cat", tmp_path / "out", processes=2, timeout=0.2)
    failed = {Path(record.image).name: record.error for record in found if record.status == "failed"}
    assert failed.pop("broken.png")
    assert failed == {"white.png": f"{many / 'white.png'}: took longer than 1 s in its engine"}


def engine(what, **options):
    return ProcessEngine(pickle.dumps(partial(scores, what)), "cpu", 5, 2, **options)


@pytest.mark.parametrize("place", [1 << 23, 1], ids=["shared", "travelling"])
def test_scores_come_back(monkeypatch, place):
    monkeypatch.setattr(processes, "_PLACE", place)
    own = engine("serve")
    try:
        first, second = (own(np.full((2, 40, 40, 3), value, np.uint8), (40, 40), None) for value in (7, 8))
    finally:
        own.close()
    assert [float(each.mean()) for each in (*first, *second)] == [12, 12, 13, 13]
    assert first[0].shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("what", "error", "told"),
    [
        ("fail", EngineError, "^MemoryError: no room on cpu$"),
        ("die", EngineGoneError, "^ended its engine with status 3$"),
        ("refuse", EngineStartError, "process for cpu could not start: ValueError: no such device as cpu"),
    ],
)
def test_what_goes_wrong_is_told(what, error, told):
    goes_wrong_twice(engine(what), error, told)


def goes_wrong_twice(own, error, told):
    """Once more in a process that is started again."""
    with closing(own):
        for _ in range(2):
            with pytest.raises(error, match=told):
                own(np.zeros((2, 4, 4, 3), np.uint8), (4, 4), None)
    assert own._process is None


@pytest.mark.parametrize(
    ("what", "error", "told"),
    [
        ("hang", EngineGoneError, "^took longer than 0.6 s in its engine$"),
        ("never", EngineStartError, "process for cpu could not start: took longer than 0.2 s in its engine$"),
    ],
)
def test_one_that_says_nothing_is_killed(monkeypatch, what, error, told):
    monkeypatch.setattr(processes, "_LEAST", 0.3)
    if what == "never":
        monkeypatch.setattr(processes, "_STARTING", 0.2)
    goes_wrong_twice(engine(what, timeout=0.3), error, told)


def test_each_window_has_the_time_of_an_image(monkeypatch):
    waited = []

    def answer(self, seconds):
        waited.append(seconds)
        return [] if len(waited) > 1 else None  # it has started

    monkeypatch.setattr(ProcessEngine, "_answer", answer)
    with closing(engine("serve", windows=Windows(32, 16, 16), timeout=200.0)) as own:
        own(np.zeros((2, 64, 32, 3), np.uint8), (64, 32), None)
        own(np.zeros((1, 32, 32, 3), np.uint8), (32, 32), None)
    assert waited == [300, 2 * 3 * 200, 300]  # to start, two images in three windows, and never less


@pytest.mark.parametrize("timeout", [np.inf, 1e300, 1e10, 3e6])
def test_a_time_that_no_system_waits_for_is_any(timeout):
    with closing(engine("serve", timeout=timeout)) as own:
        assert own._limit(1, (32, 32)) is None


def test_a_process_that_cannot_be_killed_is_left():
    """As one that waits for a driver."""
    said = []

    def wait(timeout):
        said.append("wait")
        raise subprocess.TimeoutExpired("it", timeout)

    own = engine("serve", timeout=1.0)
    own._process = SimpleNamespace(wait=wait, kill=lambda: said.append("kill"))
    own._connection = SimpleNamespace(poll=lambda seconds: False, send=lambda message: None, close=lambda: None)
    with pytest.raises(EngineGoneError, match=r"^took longer than 300 s"):
        own(np.zeros((1, 4, 4, 3), np.uint8), (4, 4), None)
    own.close()
    assert said == ["kill", "wait", "kill", "wait", "kill"]


def test_a_run_whose_engine_cannot_start_ends(small_model, many, tmp_path, monkeypatch):
    monkeypatch.setattr(GemModel, "replica", lambda *_: partial(scores, "refuse"))
    with pytest.raises(OSError, match="could not start"):
        segment_files(small_model, many, "cat", tmp_path / "out", processes=2, **SETTINGS)
    assert not leftovers(tmp_path / "out")
