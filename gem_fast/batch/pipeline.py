"""The pipeline: workers prepare images, the engine takes them in batches of one shape, workers finish them.

list → prepare (read, decode, resize) → group → encode → finish (decode scores, encode files, write)
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from ..ahead import ahead
from ..engine import Encode, Sizes
from ..writing import OutputError
from .memory import Memory
from .pool import Pool
from .progress import Progress
from .sources import Source
from .workers import Answer, EngineGoneError, EngineStartError, Failure, Lost, Prepared, Work, describe

_LISTED_AHEAD = 1024
_PREPARED_AHEAD = 4  # images that wait for a worker, a worker
_PATIENCE = 0.2  # seconds that idle engines wait for a full batch, where reading is what takes long
_TICK = 0.1  # seconds between looks at the clock
# Given how many engines there are, in the thread of each: what encodes, while it is entered.
MakeEncode = Callable[[int], AbstractContextManager[Encode]]


@dataclass(frozen=True)
class Limits:
    """What the pipeline may hold, and how long an image may take.

    Attributes:
        batch_size: images in one forward.
        workers: that prepare and finish.
        engines: threads that encode, each on its share of the cores.
        images: that are under way at a time; so far it looks ahead for images of one shape.
        nbytes: that pictures under way may take, in workers and on their way to the engine.
        place: bytes of an image's place in shared memory.
        timeout: seconds that a worker may spend on one step of an image; None for no limit.
        retries: how often an image is tried again whose preparation failed, or whose worker died.
    """

    batch_size: int = 8
    workers: int = 1
    engines: int = 1
    images: int = 256
    nbytes: int = 1 << 29
    place: int = 1 << 21
    timeout: float | None = 300.0
    retries: int = 0


@dataclass(eq=False)
class Task:
    """An image under way."""

    position: int
    source: Source
    place: int
    attempts: int = 1
    prepared: Prepared | None = None
    key: Any = None  # what images of one batch share


@dataclass(frozen=True)
class Encoded:
    """What the engine made of a batch: scores, or a failure, of each task."""

    tasks: Sequence[int]
    results: Sequence[Any]
    seconds: float


class Pipeline:
    """Runs images through work and engine; results come as they are finished."""

    def __init__(self, work: Work, make_encode: MakeEncode, limits: Limits, progress: Progress) -> None:
        """Set it up.

        Args:
            work: what is done with one image.
            make_encode: entered in the thread of each engine with the number of engines. What it gives takes pixels
                `[B, H, W, 3]` uint8 and the shape of their input to the scores of each image, arrays on the host, or
                to its labels where their sizes are named.
            limits: see there.
            progress: is kept up to date with the stages' times.
        """
        self._work, self._make_encode, self._limits, self._progress = work, make_encode, limits, progress
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._batches: queue.Queue[Any] = queue.Queue()
        self._encoding = 0  # batches that the engines have
        self._engines = 1
        self._idle_since = time.monotonic()
        self._preparing = 0
        self._tasks: dict[int, Task] = {}
        self._numbers = iter(range(1, 1 << 62))
        self._groups: dict[Any, deque[int]] = {}  # of images that can share a batch
        self._bytes = 0

    def run(self, sources: Iterable[tuple[int, Source]]) -> Generator[tuple[int, Source, Any], None, None]:
        """Position, source and record, or `Failure`, of each source with its position, in the order of finishing.

        Raises:
            Whatever ends the run, such as an `OutputError`; then what is under way is dropped.
        """
        listed = ahead(sources, _LISTED_AHEAD)
        # A few images are done soonest by one engine on all cores.
        ahead_of_all = max(self._limits.workers, self._limits.engines * self._limits.batch_size)
        first = list(islice(listed, ahead_of_all))
        if not first:
            return
        self._engines = max(1, min(self._limits.engines, len(first) // self._limits.batch_size))
        places = min(self._limits.images, len(first)) if len(first) < ahead_of_all else self._limits.images
        try:
            self._memory = Memory(places, self._limits.place)
        except OSError as error:
            asked = f"batch_size {self._limits.batch_size:,} takes {places * self._limits.place:,} bytes"
            raise ValueError(f"{asked}, more than there are ({error.strerror}): take a smaller one") from error
        self._places = list(range(places))[::-1]
        workers = min(len(first), self._limits.workers)
        self._pool = Pool(workers, self._work, self._memory, self._events, self._limits.timeout)
        engines = [threading.Thread(target=self._engine, name="engine", daemon=True) for _ in range(self._engines)]
        for engine in engines:
            engine.start()
        finished = False
        try:
            yield from self._loop(chain(first, listed))
            finished = True
        finally:
            for _ in engines:
                self._batches.put(None)
            self._pool.close(at_once=not finished)
            for engine in engines:
                engine.join()

    def _loop(self, listed: Iterator[tuple[int, Source]]) -> Iterator[tuple[int, Source, Any]]:
        waiting = next(listed, None)
        while waiting or self._tasks:
            while waiting and self._has_room():
                self._start(Task(*waiting, self._places.pop()))
                waiting = next(listed, None)
            self._hand_out(last=waiting is None)
            with suppress(queue.Empty):
                yield from self._handle(self._events.get(timeout=_TICK))
            self._pool.end_hung()

    def _has_room(self) -> bool:
        if not self._tasks:
            return True
        waiting = self._preparing < _PREPARED_AHEAD * self._limits.workers
        return waiting and bool(self._places) and self._bytes < self._limits.nbytes

    def _start(self, task: Task) -> None:
        number = next(self._numbers)
        self._tasks[number] = task
        self._preparing += 1
        self._pool.prepare(number, task.place, task.source)

    def _hand_out(self, last: bool) -> None:
        """Give the engines batches, one more than they work on: full ones, or what there is where no more can come."""
        while self._encoding <= self._engines and self._groups:
            key = max(self._groups, key=lambda each: len(self._groups[each]))
            group, size = self._groups[key], self._limits.batch_size
            idle = self._encoding < self._engines
            starving = not self._encoding and time.monotonic() - self._idle_since > _PATIENCE
            if len(group) < size and not starving and (self._preparing or not (idle or last)):
                return
            if last and not self._preparing:  # the last images are shared out, so that all engines end together
                left = sum(map(len, self._groups.values()))
                size = min(size, -(-left // self._engines))
            batch = [group.popleft() for _ in range(min(len(group), size))]
            if not group:
                del self._groups[key]
            self._encoding += 1
            ready = [self._prepared(number) for number in batch]
            pixels = [self._memory.get(each.pixels) for each in ready]
            self._batches.put((batch, pixels, key[1], decoded_sizes(ready)))

    def _prepared(self, number: int) -> Prepared:
        prepared = self._tasks[number].prepared
        assert prepared is not None
        return prepared

    def _engine(self) -> None:
        try:
            with self._make_encode(self._engines) as encode:
                while batch := self._batches.get():
                    start = time.perf_counter()
                    numbers, pixels, shape, sizes = batch
                    del batch  # for what is large is let go before the next wait
                    pixels = np.stack(pixels) if len(pixels) > 1 else pixels[0][None]
                    results = scores_of(encode, pixels, shape, sizes)
                    del pixels
                    self._events.put(Encoded(numbers, results, time.perf_counter() - start))
        except BaseException as error:  # to be raised where the run is waited for
            self._events.put(error)

    def _handle(self, event: Any) -> Iterator[tuple[int, Source, Any]]:
        """What the engine or a worker has come with: images that are finished by it."""
        if isinstance(event, BaseException):
            raise event
        if not isinstance(event, Encoded):
            for answer in self._pool.heard(*event):
                yield from self._answered(answer)
            return
        self._encoding -= 1
        self._idle_since = time.monotonic()
        self._progress.spent({"encode": event.seconds})
        for number, result in zip(event.tasks, event.results, strict=True):
            task = self._tasks.get(number)
            if task is None:
                continue  # its worker has died meanwhile: another is at it
            assert task.prepared is not None
            task.prepared = replace(task.prepared, pixels=None)
            scores = result if isinstance(result, Failure) else self._memory.put(task.place, result)
            self._pool.finish(number, scores)

    def _answered(self, answer: Answer) -> Iterator[tuple[int, Source, Any]]:
        task, result = self._tasks[answer.task], answer.result
        self._progress.spent(answer.seconds)
        preparing = task.prepared is None
        if isinstance(result, Prepared):
            self._preparing -= 1
            task.prepared = result
            self._bytes += result.nbytes
            task.key = self._memory.get(result.pixels).shape, result.shape
            self._groups.setdefault(task.key, deque()).append(answer.task)
            return
        self._leave(answer.task, task)
        if isinstance(result, Failure) and result.fatal:
            raise OutputError(result.error)
        if isinstance(result, Failure) and (preparing or result.gone) and task.attempts <= self._limits.retries:
            self._start(Task(task.position, task.source, task.place, task.attempts + 1))
        elif isinstance(result, Lost):
            self._start(Task(task.position, task.source, task.place, task.attempts))
        else:
            self._places.append(task.place)
            yield task.position, task.source, result

    def _leave(self, number: int, task: Task) -> None:
        """Take a task out of everything that knows it."""
        del self._tasks[number]
        if task.prepared is None:
            self._preparing -= 1
            return
        self._bytes -= task.prepared.nbytes
        if number in self._groups.get(task.key, ()):
            self._groups[task.key].remove(number)
            if not self._groups[task.key]:
                del self._groups[task.key]


def decoded_sizes(batch: Iterable[Any]) -> Sizes:
    """`decoded_size` of each image of a batch, or None where the engine is to give scores."""
    sizes = [each.decoded_size for each in batch]
    return None if None in sizes else sizes


def scores_of(encode: Encode, pixels: np.ndarray, shape: tuple[int, int], sizes: Sizes = None) -> list[Any]:
    """Scores, or labels, of each image, or what went wrong with it."""
    try:
        return list(encode(pixels, shape, sizes))
    except EngineStartError:
        raise
    except Exception as error:
        if len(pixels) == 1:
            return [Failure(describe(error), gone=isinstance(error, EngineGoneError))]
    # Something about one image broke the batch: find it by taking them one by one.
    alone = [(pixels[i : i + 1], sizes and sizes[i : i + 1]) for i in range(len(pixels))]
    return [result for each, size in alone for result in scores_of(encode, each, shape, size)]
