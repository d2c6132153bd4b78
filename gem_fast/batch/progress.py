"""What a run tells while it goes on, and what it has told at its end."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """Counts and times of a run.

    Attributes:
        total: number of images, once it is known.
        done, failed, kept: images so far; kept are those of an earlier run.
        seconds: that each stage was busy, over all workers.
        reasons: failures by their reason.
        started: when the run began, on `time.monotonic`'s clock; None before.
    """

    total: int | None = None
    done: int = 0
    failed: int = 0
    kept: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    reasons: Counter[str] = field(default_factory=Counter)
    started: float | None = None

    def spent(self, seconds: Mapping[str, float]) -> None:
        """What stages took."""
        for stage, value in seconds.items():
            self.seconds[stage] += value

    def count(self, status: str, reason: str | None = None) -> None:
        """One more image, ok or failed for a reason."""
        if status == "ok":
            self.done += 1
        else:
            self.failed += 1
            self.reasons[reason or "unknown"] += 1

    @property
    def elapsed(self) -> float:
        return 0.0 if self.started is None else time.monotonic() - self.started

    @property
    def images_per_second(self) -> float:
        return (self.done + self.failed) / max(self.elapsed, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far, or None if the total is not known yet."""
        left = None if self.total is None else self.total - self.done - self.failed - self.kept
        return None if left is None or not self.images_per_second else max(0, left) / self.images_per_second

    def told(self) -> dict[str, Any]:
        """As JSON has it: for `--progress json` and `--stats`."""
        return {
            "total": self.total,
            "done": self.done,
            "failed": self.failed,
            "kept": self.kept,
            "seconds": round(self.elapsed, 3),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
            "images_per_second": round(self.images_per_second, 3),
            "stages": {name: round(value, 3) for name, value in self.seconds.items()},
            "failures": dict(self.reasons.most_common()),
        }
