"""Workers for what is done with one image before and after the engine, which a bad file may hang or kill.

Where processes can fork, workers are processes: an image stays with the one that prepared it, so that its picture never
travels, and pixels and scores go through shared memory. Elsewhere they are threads, which can hang but not be ended.
"""

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..images import ImageError
from ..writing import OutputError
from .sources import Source

_PR_SET_PDEATHSIG = 1  # Linux
_NICENESS = 5  # the engine goes first where they share its cores
FORKS = hasattr(os, "fork") and sys.platform.startswith("linux")
Seconds = dict[str, float]  # how long each stage took


class Work(Protocol):
    """What is done with one image. Each step adds what its stages took to `seconds`."""

    def prepare(self, source: Source, seconds: Seconds) -> tuple[Any, np.ndarray, tuple[int, int]]:
        """What `finish` will need, with `nbytes`, the pixels for the engine, and the shape of its input."""

    def finish(self, held: Any, scores: np.ndarray, seconds: Seconds) -> Any:
        """The image's record, given its scores."""


@dataclass(frozen=True)
class Failure:
    """Why an image can't go on.

    Attributes:
        error: the reason.
        fatal: no other image could go on either.
        gone: the worker died or hung, on this image.
    """

    error: str
    fatal: bool = False
    gone: bool = False


@dataclass(frozen=True)
class Lost:
    """A worker died on another image, and what it held of this one is lost."""


@dataclass(frozen=True)
class Prepared:
    """An image whose pixels wait for the engine, and the bytes that its worker holds of it."""

    pixels: Any  # as `Memory.put` gives it
    shape: tuple[int, int]
    nbytes: int


@dataclass(frozen=True)
class Answer:
    """What became of a request: `Prepared`, the work's record, `Failure` or `Lost`."""

    task: int
    result: Any
    seconds: Seconds = field(default_factory=dict)


class Memory:
    """Places for arrays that parent and workers share, one a task; what does not fit travels by itself."""

    def __init__(self, places: int, size: int) -> None:
        self._size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, self._size * places)

    def put(self, place: int, array: np.ndarray) -> Any:
        """Store an array; what is returned stands for it in any process."""
        if array.nbytes > self._size:
            return array
        offset = place * self._size
        reference = (offset, array.shape, array.dtype.str)
        np.copyto(self.get(reference), array)
        return reference

    def get(self, reference: Any) -> np.ndarray:
        """The array itself, in place: to be read before the place is used again."""
        if isinstance(reference, np.ndarray):
            return reference
        offset, shape, kind = reference
        return np.frombuffer(self._map, kind, int(np.prod(shape)), offset).reshape(shape)


def serve(work: Work, memory: Memory, receive: Callable[[], Any], send: Callable[[Answer], None]) -> None:
    """Answer requests one after another until there is none.

    Requests are `(task, place, source)` to prepare an image, `(task, scores)` to finish it, and `(task, failure)` to
    drop it.
    """
    held: dict[int, Any] = {}
    while request := receive():
        task, *rest = request
        seconds: Seconds = {}
        try:
            if isinstance(rest[-1], Source):
                place, source = rest
                held[task], pixels, shape = work.prepare(source, seconds)
                result: Any = Prepared(memory.put(place, pixels), shape, held[task].nbytes)
            elif isinstance(rest[0], Failure):
                del held[task]
                result = rest[0]
            else:
                result = work.finish(held.pop(task), memory.get(rest[0]), seconds)
        except Exception as error:  # one image must never end a run
            held.pop(task, None)
            result = Failure(describe(error), fatal=isinstance(error, OutputError))
        send(Answer(task, result, seconds))


def describe(error: BaseException) -> str:
    """An error as users read it: with its kind, unless it is one that speaks for itself."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return str(error) if isinstance(error, ImageError) else f"{type(error).__name__}: {error}"


Hear = Callable[[Answer | None], None]


class ProcessWorker:
    """A worker in a process of its own, forked, and the thread that hears it."""

    def __init__(self, work: Work, memory: Memory, hear: Hear, others: Iterable[Any]) -> None:
        """Fork. `hear` is called with each answer, and with None when the process has ended."""
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        ours = [self.connection, *(other.connection for other in others)]
        with warnings.catch_warnings():
            # Its children never touch what other threads may hold: they compute on one thread of their own.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.process = context.Process(target=_child, args=(work, memory, theirs, ours), daemon=True)
            self.process.start()
        theirs.close()
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._speak, daemon=True).start()
        self._listener = threading.Thread(target=self._listen, args=(hear,), daemon=True)
        self._listener.start()

    def _speak(self) -> None:
        """Send requests: apart, since a worker that hangs reads none."""
        with contextlib.suppress(OSError):  # it has died, as is heard
            while request := self._requests.get():
                self.connection.send(request)
            self.connection.send(None)

    def _listen(self, hear: Hear) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                hear(self.connection.recv())
        self.process.join()
        self.connection.close()
        self.send(None)  # so that what speaks to it ends too
        hear(None)

    def send(self, request: Any) -> None:
        self._requests.put(request)

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.send(None)
        self.process.join(timeout=5)
        self.process.kill()
        self._listener.join()

    @property
    def fate(self) -> str:
        code = self.process.exitcode or 0
        if code >= 0:
            return f"ended its worker with status {code}"
        name = signal.Signals(-code).name
        return f"ended its worker by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


def _child(work: Work, memory: Memory, connection: Any, others: Iterable[Any]) -> None:
    """A worker process: of the parent it keeps the work, the memory and its end of the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        other.close()  # or the parent's end would outlive the parent
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a worker that hangs ends with it too
    os.nice(_NICENESS)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    with contextlib.suppress(EOFError, OSError):  # the parent has died
        serve(work, memory, connection.recv, connection.send)


class ThreadWorker:
    """A worker in a thread, for where processes can't fork."""

    fate = "hung"

    def __init__(self, work: Work, memory: Memory, hear: Hear, others: Iterable[Any]) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._hear, self._abandoned = hear, False
        target = (work, memory, self._requests.get, self._answer)
        threading.Thread(target=serve, args=target, daemon=True).start()

    def _answer(self, answer: Answer) -> None:
        if not self._abandoned:
            self._hear(answer)

    def send(self, request: Any) -> None:
        self._requests.put(request)

    def kill(self) -> None:
        """A thread can't be ended: it is left alone."""
        self._abandoned = True
        self._hear(None)

    def close(self) -> None:
        self.send(None)


class Pool:
    """Workers, each with a queue of requests; their answers come as events.

    An image on which a worker dies, or that takes longer than the time limit, is answered with a `Failure`; what else
    that worker held is `Lost`; another worker takes its place.
    """

    def __init__(
        self, count: int, work: Work, memory: Memory, events: "queue.SimpleQueue[Any]", timeout: float | None
    ) -> None:
        self._work, self._memory, self._events, self._timeout = work, memory, events, timeout
        self._make = ProcessWorker if FORKS else ThreadWorker
        self._seats: list[_Seat] = []
        self._home: dict[int, _Seat] = {}  # of each image
        for _ in range(count):
            self._seats.append(self._seated())

    def _seated(self) -> "_Seat":
        seat = _Seat()
        others = [other.worker for other in self._seats]
        seat.worker = self._make(self._work, self._memory, lambda answer: self._events.put((seat, answer)), others)
        return seat

    def prepare(self, task: int, place: int, source: Source) -> None:
        """Ask the least busy worker to prepare an image."""
        seat = min(self._seats, key=lambda each: len(each.waiting))
        self._home[task] = seat
        self._ask(seat, task, (task, place, source))

    def finish(self, task: int, scores: Any) -> None:
        """Ask the worker that prepared an image to finish it."""
        self._ask(self._home[task], task, (task, scores))

    def _ask(self, seat: "_Seat", task: int, request: Any) -> None:
        if not seat.waiting:
            seat.since = time.monotonic()
        seat.waiting.append(task)
        seat.worker.send(request)

    def heard(self, seat: "_Seat", answer: Answer | None) -> list[Answer]:
        """Answers to hand on, of what a worker said, or of its end."""
        if answer is not None:
            seat.waiting.popleft()
            seat.since = time.monotonic()
            if not isinstance(answer.result, Prepared):
                del self._home[answer.task]
            return [answer]
        guilty = seat.waiting[0] if seat.waiting else None
        lost = [task for task, home in self._home.items() if home is seat]
        for task in lost:
            del self._home[task]
        self._seats[self._seats.index(seat)] = self._seated()
        told = f"took longer than {self._timeout:g} s" if seat.hung else seat.worker.fate
        return [Answer(task, Failure(told, gone=True) if task == guilty else Lost()) for task in lost]

    def end_hung(self) -> None:
        """End the workers whose image has taken too long."""
        for seat in self._seats:
            late = self._timeout is not None and time.monotonic() - seat.since > self._timeout
            if seat.waiting and late and not seat.hung:
                seat.hung = True
                seat.worker.kill()

    def close(self, at_once: bool = False) -> None:
        """End all workers, or kill them."""
        for seat in self._seats:
            if at_once:
                seat.worker.kill()
        for seat in self._seats:
            seat.worker.close()


class _Seat:
    """A worker's place in the pool: the images whose answers it owes, and since when it works on the first."""

    def __init__(self) -> None:
        self.worker: Any = None
        self.waiting: deque[int] = deque()
        self.since = time.monotonic()
        self.hung = False
