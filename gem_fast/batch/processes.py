"""Engines in processes of their own: one for each GPU, or each on its share of the cores."""

import math
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import cycle
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cores import cores
from ..engine import Encode, Sizes, encoder
from .memory import Memory
from .pipeline import MakeEncode
from .workers import EngineError, EngineGoneError, EngineStartError, describe, fate

if TYPE_CHECKING:
    from ..query import Query
    from ..segmenter import Segmenter
    from ..windows import Windows

SUPPORTED = hasattr(os, "memfd_create")
_PLACE = 1 << 23  # bytes that the pixels, and the scores, of an image may take without travelling
_STARTING = 300.0  # seconds until a process can encode
_LEAST = 300.0  # seconds that any batch may take: the first may have kernels compiled
_FOREVER = float(1 << 20)  # seconds, twelve days; no system waits for 2³¹ ms
_PIXELS, _SCORES = 0, 1
_START = "from gem_fast.batch.processes import serve; serve({}, {}, {})"


def in_threads(model: "Segmenter", query: "Query", windows: "Windows | None", batch_size: int) -> MakeEncode:
    """What makes engines of the model itself, each on its share of the cores."""

    @contextmanager
    def make(engines: int) -> Iterator[Encode]:
        model.share_cores(engines)
        with model.own_stream():
            yield encoder(model, query, windows, batch_size)

    return make


def in_processes(
    model: "Segmenter", query: "Query", windows: "Windows | None", batch_size: int, timeout: float | None
) -> MakeEncode:
    """What makes engines that are processes, on the model's devices in turn, all of which share the cores.

    Each may take `timeout` seconds for an image of a batch, or for a window of one; None for any.

    Raises:
        ValueError: this system can't.
    """
    if not SUPPORTED:
        raise ValueError("engines in processes of their own need Linux: leave out processes, and name one device")
    replica, places = pickle.dumps(model.replica(query, windows, batch_size)), cycle(model.devices)

    @contextmanager
    def make(engines: int) -> Iterator[Encode]:
        threads = max(1, cores() // engines)
        with closing(ProcessEngine(replica, next(places), threads, batch_size, windows, timeout)) as engine:
            engine.start()
            yield engine

    return make


class ProcessEngine:
    """Encodes in a process, which is started when it is needed, and again where it died, or hung and was killed.

    It is a new interpreter rather than a fork: neither CUDA nor OpenMP's threads live on in a fork.
    """

    def __init__(
        self,
        replica: bytes,
        device: str,
        threads: int,
        batch_size: int,
        windows: "Windows | None" = None,
        timeout: float | None = None,
    ) -> None:
        """Set it up.

        Args:
            replica: what `Segmenter.replica` gives, pickled.
            device, threads: where it computes.
            batch_size: images in one forward.
            windows: that it reads images in.
            timeout: seconds that it may take for an image or a window; None for any.
        """
        self._replica, self._device, self._threads = replica, device, threads
        self._windows, self._timeout = windows, timeout
        self._size = batch_size * _PLACE
        self._memory = Memory(2, self._size, os.memfd_create("gem_fast"))
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def start(self) -> None:
        """Start the process, and wait until it can encode.

        Raises:
            EngineStartError: it can't.
        """
        ours, theirs = socket.socketpair()
        handles = (theirs.fileno(), self._memory.handle)
        # A session of its own: Ctrl-C on the terminal is the parent's to hear.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(*handles, self._size)], pass_fds=handles, start_new_session=True
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        try:
            self._connection.send((list(sys.path), self._device, self._threads))
            self._connection.send_bytes(self._replica)
            if (error := self._answer(None if self._timeout is None else _STARTING)) is not None:
                self._end()
        except EngineGoneError as gone:
            error = gone
        except OSError:
            error = self._end()
        if error is not None:
            raise EngineStartError(f"an engine's process for {self._device} could not start: {error}")

    def __call__(self, pixels: np.ndarray, shape: tuple[int, int], sizes: Sizes) -> list[np.ndarray]:
        """Scores, or labels, of each image of a batch.

        Raises:
            EngineError: the engine failed. EngineGoneError: its process died, or hung. EngineStartError: no other could
                start.
        """
        if self._process is None:
            self.start()
        assert self._connection is not None
        try:
            self._connection.send((self._memory.put(_PIXELS, pixels), shape, sizes))
        except OSError as error:
            raise EngineGoneError(self._end()) from error
        result = self._answer(self._limit(len(pixels), shape))
        if isinstance(result, EngineError):
            raise result
        return result if isinstance(result, list) else list(np.array(self._memory.get(result)))

    def _limit(self, images: int, shape: tuple[int, int]) -> float | None:
        """Seconds that a batch may take."""
        windows = len(self._windows.layout(shape)) if self._windows else 1
        limit = math.inf if self._timeout is None else max(_LEAST, images * windows * self._timeout)
        return limit if limit < _FOREVER else None

    def _answer(self, seconds: float | None) -> Any:
        """What the process says next.

        Raises:
            EngineGoneError: it died, or said nothing for so long and was killed.
        """
        assert self._process is not None
        assert self._connection is not None
        try:
            if self._connection.poll(seconds):
                return self._connection.recv()
        except (EOFError, OSError) as error:
            raise EngineGoneError(self._end()) from error
        self._process.kill()
        self._end()
        raise EngineGoneError(f"took longer than {seconds:g} s in its engine")

    def _end(self) -> str:
        """Make sure that the process has ended, and tell how it did."""
        assert self._process is not None
        assert self._connection is not None
        self._connection.close()
        process, self._process = self._process, None
        for _ in range(2):
            with suppress(subprocess.TimeoutExpired):
                return fate(process.wait(timeout=5), "its engine")
            process.kill()
        return "hangs in its engine, whose process can't be killed"  # it waits for a driver that never answers

    def close(self) -> None:
        if self._process is not None:
            self._end()
        os.close(self._memory.handle)


def serve(connection: int, memory: int, size: int) -> None:
    """The process: encode batch after batch until the other end of the connection is closed."""
    try:
        _serve(Connection(connection), Memory(2, size, memory))
    except (EOFError, OSError):
        os._exit(0)  # the run has ended: nothing here is worth the time of taking it down


def _serve(connection: Any, memory: Memory) -> None:
    path, device, threads = connection.recv()
    sys.path[:] = path
    try:
        encode = pickle.loads(connection.recv_bytes())(device, threads)
    except Exception as error:
        connection.send(describe(error))
        return
    connection.send(None)
    while True:
        reference, shape, sizes = connection.recv()
        try:
            results = encode(memory.get(reference), shape, sizes)
            alike = len({each.shape for each in results}) == 1  # labels of photos need not be
            answer: Any = memory.put(_SCORES, np.stack(results)) if alike else list(results)
        except Exception as error:  # the images are tried one by one
            answer = EngineError(describe(error))
        connection.send(answer)
