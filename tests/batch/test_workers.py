"""An image that hangs, or kills its worker, is named, and the run goes on without it."""

import ctypes
import faulthandler
import json
import os
import queue
import signal
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gem_fast import segment_files
from gem_fast.batch import pool, work
from gem_fast.batch.memory import Memory
from gem_fast.batch.sources import Source
from gem_fast.batch.workers import (
    FORKS,
    Answer,
    EngineError,
    Failure,
    ProcessWorker,
    ThreadWorker,
    _answer,
    serve,
)
from gem_fast.images import ImageError, load_pixels
from gem_fast.writing import OutputError
from tests.batch.test_run import SETTINGS, leftovers, names, run

pytestmark = pytest.mark.skipif(not FORKS, reason="workers are processes where they can fork")


@pytest.fixture
def trouble(monkeypatch, folder, picture):
    """A folder of nine images, and a function that makes the reading of one of them go wrong."""
    for i in range(6):
        picture(40, 64, 10 + i).save(folder / f"d{i}.png")

    def cause(name, what):
        def load(path, most):
            if Path(path).name == name:
                what()
            return load_pixels(path, most)

        monkeypatch.setattr(work, "load_pixels", load)

    return cause


def failed(found):
    return {Path(record.image).name: record.error for record in found if record.status == "failed"}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("kill", "told"),
    [
        (lambda: [faulthandler.disable(), os.kill(os.getpid(), signal.SIGSEGV)], "ended its worker by SIGSEGV"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended its worker by SIGKILL, perhaps for want of memory"),
        (lambda: os._exit(3), "ended its worker with status 3"),
    ],
    ids=["segfault", "out-of-memory", "exit"],
)
def test_a_worker_that_dies(small_model, folder, tmp_path, trouble, kill, told, workers):
    trouble("d2.png", kill)
    found = run(small_model, folder, "cat", tmp_path / "out", workers=workers)
    assert names(found) == ["a.png", "b.jpg", *(f"d{i}.png" for i in range(6)), "c.png"]
    assert failed(found) == {"d2.png": f"{folder / 'd2.png'}: {told}"}


@pytest.mark.parametrize("workers", [1, 3])
def test_an_image_that_hangs(small_model, folder, tmp_path, trouble, workers):
    trouble("d2.png", lambda: time.sleep(1000))
    found = run(small_model, folder, "cat", tmp_path / "out", workers=workers, timeout=0.7)
    assert failed(found) == {"d2.png": f"{folder / 'd2.png'}: took longer than 0.7 s"}
    assert len(found) == 9


def test_a_worker_that_dies_while_it_writes(small_model, folder, tmp_path, monkeypatch):
    whole = work.ImageWork.finish

    def finish(self, held, *arguments):
        if held.source.path.name == "b.jpg":
            os._exit(1)
        return whole(self, held, *arguments)

    monkeypatch.setattr(work.ImageWork, "finish", finish)
    found = run(small_model, folder, "cat", tmp_path / "out", workers=1)
    assert failed(found) == {"b.jpg": f"{folder / 'b.jpg'}: ended its worker with status 1"}
    assert not leftovers(tmp_path / "out")


def test_an_image_is_tried_again(small_model, folder, tmp_path, trouble):
    tries = tmp_path / "tries"

    def fail():
        with open(tries, "a") as file:
            file.write("x")
        if tries.stat().st_size < 3:
            raise ImageError("the network is away")

    trouble("d2.png", fail)
    assert not failed(run(small_model, folder, "cat", tmp_path / "out", retries=2))
    assert tries.read_text() == "xxx"
    tries.unlink()
    found = run(small_model, folder, "cat", tmp_path / "less", retries=1)
    assert failed(found) == {"d2.png": f"{folder / 'd2.png'}: the network is away"}


@pytest.mark.parametrize(
    ("error", "fatal"), [(OutputError("the disk is full"), True), (OSError("gone"), False), (MemoryError(), False)]
)
@pytest.mark.parametrize("fails", ["prepare", "put", "finish", None])
def test_a_worker_holds_nothing_of_an_image_that_has_ended(fails, error, fatal):
    """Whether it is finished, given up by others, or fails; a failed output alone ends the run."""

    def step(name, result):
        def run(*_):
            if name == fails:
                raise error
            return result

        return run

    prepared = SimpleNamespace(nbytes=5, decoded_size=None), np.zeros(1), (8, 8)
    watched, held = SimpleNamespace(prepare=step("prepare", prepared), finish=step("finish", "done")), {}
    memory = SimpleNamespace(put=step("put", None), get=lambda scores: scores)
    first = _answer(watched, memory, held, 1, 0, Source(Path("a"), "a", 0)).result
    if fails not in ("prepare", "put"):
        assert (first.nbytes, list(held)) == (5, [1])
        given_up = dict(held)
        assert _answer(watched, memory, given_up, 1, Failure("gone")).result == Failure("gone")
        assert not given_up
        first = _answer(watched, memory, held, 1, np.zeros(1)).result
    assert not held
    assert first == "done" if fails is None else first.fatal == fatal


@pytest.fixture
def seats(monkeypatch):
    """A function that makes a pool with a limit of 10 s, its workers, and a clock to set."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def make(count):
        workers = []

        def worker(*_):
            workers.append(SimpleNamespace(sent=[], ended=[]))
            made = workers[-1]
            made.send, made.kill = (
                (lambda request: made.sent.append(request[0])),
                (lambda: made.ended.append(clock.now)),
            )
            return made

        monkeypatch.setattr(pool, "ProcessWorker", worker)
        return pool.Pool(count, None, None, None, 10), workers, clock

    return make


def test_the_least_busy_worker_is_asked(seats):
    made, workers, _ = seats(2)
    for task in range(3):
        made.prepare(task, 0, None)
    made.heard(made._seats[0], Answer(0, None))
    made.heard(made._seats[0], Answer(2, None))
    made.prepare(3, 0, None)
    assert [each.sent for each in workers] == [[0, 2, 3], [1]]


def test_each_image_has_the_whole_time_and_a_worker_that_waits_has_no_limit(seats):
    made, (worker,), clock = seats(1)

    def late(now):
        clock.now = now
        made.end_hung()
        return bool(worker.ended)

    made.prepare(0, 0, None)
    made.prepare(1, 0, None)
    assert not late(8)
    made.heard(made._seats[0], Answer(0, None))
    assert not late(12)  # the second has begun at 8
    made.heard(made._seats[0], Answer(1, None))
    assert not late(100)
    made.prepare(2, 0, None)
    clock.now = 105
    made.prepare(3, 0, None)
    assert not late(110)
    assert late(111)
    assert (late(200), worker.ended) == (True, [111])


def test_no_worker_is_left(small_model, folder, tmp_path):
    def children():
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}

    before = children()
    segment_files(small_model, folder, "cat", tmp_path / "out", workers=3, **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        segment_files(small_model, folder, "cat", tmp_path / "two", workers=3, on_record=interrupt, **SETTINGS)
    assert children() == before


def interrupt(_):
    raise KeyboardInterrupt


def open_files():
    """What this process has open, by what the system calls it."""
    return {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def test_what_a_workers_process_has_of_its_parent():
    """None of its pipes: their ends would outlive it. It goes behind, ends with it, and leaves Ctrl-C to it."""

    class Told:
        def prepare(self, source, seconds):
            dies_by = ctypes.c_int()
            ctypes.CDLL(None).prctl(2, ctypes.byref(dies_by))
            handled = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
            raise EngineError(json.dumps([handled, dies_by.value, os.nice(0), sorted(open_files())]))

    heard = queue.SimpleQueue()
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        first = ProcessWorker(Told(), None, heard.put, [])
        second = ProcessWorker(Told(), None, heard.put, [first])
    finally:
        signal.signal(signal.SIGTERM, before)
    ends = {os.readlink(f"/proc/self/fd/{each.connection.fileno()}") for each in (first, second)}
    second.send((1, 0, Source(Path("a"), "a", 0)))
    answer = heard.get(timeout=60)
    for each in (second, first):
        each.close()
    handled, dies_by, niceness, files = json.loads(answer.result.error)
    assert handled == [str(signal.SIG_IGN), str(signal.SIG_DFL)]
    assert (dies_by, niceness) == (signal.SIGKILL, min(19, os.nice(0) + 5))
    assert files
    assert not ends & set(files)


def test_a_thread_that_is_left_alone_is_heard_no_more():
    heard = []
    worker = ThreadWorker(None, None, heard.append, [])
    worker._answer(Answer(1, None))
    worker.kill()
    worker._answer(Answer(2, None))
    assert heard == [Answer(1, None), None]
    worker.close()


def test_pixels_are_let_go_before_the_next_wait():
    """By the worker that prepared them: those of a photo of 12,000×9,000 are 324 MB."""
    alive, kept, ended = [], [], []

    class Watched:
        def prepare(self, source, seconds):
            pixels = np.zeros((64, 64, 3), np.uint8)
            alive.append(weakref.ref(pixels))
            return SimpleNamespace(nbytes=0, decoded_size=None), pixels, (64, 64)

        def finish(self, held, scores, seconds):
            kept.append(alive[-1]() is not None)
            return None

    requests = iter([(1, 0, Source(Path("a"), "a", 0)), (1, np.zeros(1)), None])

    def receive():
        ended.append(any(each() is not None for each in alive))
        return next(requests)

    answers = []
    serve(Watched(), Memory(1, 1 << 16), receive, lambda answer: answers.append(type(answer.result).__name__))
    assert answers == ["Prepared", "NoneType"]
    assert ended == [False] * 3
    assert kept == [False]
