"""Engines in processes of their own: one for each GPU, or each on its share of the cores."""

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import cycle
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from ..segmenter import Encode, Sizes, encoder
from .memory import Memory
from .pipeline import MakeEncode
from .workers import EngineError, EngineGoneError, EngineStartError, cores, describe, fate

if TYPE_CHECKING:
    from ..query import Query
    from ..segmenter import Segmenter
    from ..windows import Windows

SUPPORTED = hasattr(os, "memfd_create")
_PLACE = 1 << 23  # bytes that the pixels, and the scores, of an image may take without travelling
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


def in_processes(model: "Segmenter", query: "Query", windows: "Windows | None", batch_size: int) -> MakeEncode:
    """What makes engines that are processes, on the model's devices in turn, all of which share the cores.

    Raises:
        ValueError: this system can't.
    """
    if not SUPPORTED:
        raise ValueError("engines in processes of their own need Linux: leave out processes, and name one device")
    replica, places = pickle.dumps(model.replica(query, windows, batch_size)), cycle(model.devices)

    @contextmanager
    def make(engines: int) -> Iterator[Encode]:
        with closing(ProcessEngine(replica, next(places), max(1, cores() // engines), batch_size)) as engine:
            engine.start()
            yield engine

    return make


class ProcessEngine:
    """Encodes in a process, which is started when it is needed, and again where it died.

    It is a new interpreter rather than a fork: neither CUDA nor OpenMP's threads live on in a fork.
    """

    def __init__(self, replica: bytes, device: str, threads: int, batch_size: int) -> None:
        """Set it up.

        Args:
            replica: what `Segmenter.replica` gives, pickled.
            device, threads: where it computes.
            batch_size: images in one forward.
        """
        self._replica, self._device, self._threads = replica, device, threads
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
            if (error := self._connection.recv()) is not None:
                self._end()
        except (EOFError, OSError):
            error = self._end()
        if error is not None:
            raise EngineStartError(f"an engine's process for {self._device} could not start: {error}")

    def __call__(self, pixels: np.ndarray, shape: tuple[int, int], sizes: Sizes) -> list[np.ndarray]:
        """Scores, or labels, of each image of a batch.

        Raises:
            EngineError: the engine failed. EngineGoneError: its process died. EngineStartError: no other could start.
        """
        if self._process is None:
            self.start()
        assert self._connection is not None
        try:
            self._connection.send((self._memory.put(_PIXELS, pixels), shape, sizes))
            result = self._connection.recv()
        except (EOFError, OSError) as error:
            raise EngineGoneError(self._end()) from error
        if isinstance(result, EngineError):
            raise result
        return result if isinstance(result, list) else list(np.array(self._memory.get(result)))

    def _end(self) -> str:
        """Make sure that the process has ended, and tell how it did."""
        assert self._process is not None
        assert self._connection is not None
        self._connection.close()
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return fate(code, "its engine")

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
