"""The workers of a run, each with a queue of requests; one that dies or hangs is replaced."""

import queue
import time
from collections import deque
from typing import Any

from .memory import Memory
from .sources import Source
from .workers import FORKS, Answer, Failure, Lost, Prepared, ProcessWorker, ThreadWorker, Work


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
