"""Workers for what is done with one image before and after the engine, which a bad file may hang or kill.

Where processes can fork, workers are processes: an image stays with the one that prepared it, so that its picture never
travels, and pixels and scores go through shared memory. Elsewhere they are threads, which can hang but not be ended.
"""

import contextlib
import ctypes
import multiprocessing
import os
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import numpy as np

from ..images import ImageError
from ..writing import OutputError
from .memory import Memory
from .sources import Source

_PR_SET_PDEATHSIG = 1  # Linux
_NICENESS = 5  # the engine goes first where they share its cores
_TRIMMED = 64  # requests after which what the C library keeps of freed memory goes back: pictures differ in size
FORKS = hasattr(os, "fork") and sys.platform.startswith("linux")
Seconds = dict[str, float]  # how long each stage took


class Work(Protocol):
    """What is done with one image. Each step adds what its stages took to `seconds`."""

    def prepare(self, source: Source, seconds: Seconds) -> tuple[Any, np.ndarray, tuple[int, int]]:
        """What `finish` will need, with `nbytes`, the pixels for the engine, and the shape of its input.

        It has `decoded_size` too: that of the labels if `finish` takes them in place of scores, or None.
        """

    def finish(self, held: Any, scores: np.ndarray, seconds: Seconds) -> Any:
        """The image's record, given its scores, or its labels."""


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
    """An image whose pixels wait for the engine, with what its worker holds of it in bytes, and `decoded_size`."""

    pixels: Any  # as `Memory.put` gives it
    shape: tuple[int, int]
    nbytes: int
    decoded_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Answer:
    """What became of a request: `Prepared`, the work's record, `Failure` or `Lost`."""

    task: int
    result: Any
    seconds: Seconds = field(default_factory=dict)


def serve(work: Work, memory: Memory, receive: Callable[[], Any], send: Callable[[Answer], None]) -> None:
    """Answer requests one after another until there is none.

    Requests are `(task, place, source)` to prepare an image, `(task, scores)` to finish it, and `(task, failure)` to
    drop it.
    """
    held: dict[int, Any] = {}
    for served in count(1):
        request = receive()
        if not request:
            return
        send(_answer(work, memory, held, *request))  # nothing else keeps its pixels while this waits
        del request
        if served % _TRIMMED == 0:
            _trim()


def _trim() -> None:
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _answer(work: Work, memory: Memory, held: dict[int, Any], task: int, *rest: Any) -> Answer:
    """What a worker answers to a request; it holds what the images under way will need."""
    seconds: Seconds = {}
    try:
        if isinstance(rest[-1], Source):
            place, source = rest
            held[task], pixels, shape = work.prepare(source, seconds)
            own = held[task]
            result: Any = Prepared(memory.put(place, pixels), shape, own.nbytes, own.decoded_size)
        elif isinstance(rest[0], Failure):
            del held[task]
            result = rest[0]
        else:
            result = work.finish(held.pop(task), memory.get(rest[0]), seconds)
    except Exception as error:  # one image must never end a run
        held.pop(task, None)
        result = Failure(describe(error), fatal=isinstance(error, OutputError))
    return Answer(task, result, seconds)


def describe(error: BaseException) -> str:
    """An error as users read it: with its kind, unless it is one that speaks for itself."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return str(error) if isinstance(error, ImageError | EngineError) else f"{type(error).__name__}: {error}"


class EngineError(Exception):
    """What went wrong in an engine's process, in words that need no kind of error before them."""


class EngineGoneError(EngineError):
    """An engine's process died on what it was given; the message says how."""


class EngineStartError(OSError):
    """An engine's process can't start: no image could go on."""


def fate(code: int, what: str) -> str:
    """How a process ended, by its exit code."""
    if code >= 0:
        return f"ended {what} with status {code}"
    name = signal.Signals(-code).name
    return f"ended {what} by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


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
        return fate(self.process.exitcode or 0, "its worker")


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
