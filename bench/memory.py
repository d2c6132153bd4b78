"""Resident memory of this process by Linux's account."""

import contextlib
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")


def resident_mb() -> float | None:
    """Resident memory now, in MB (2²⁰ bytes); None where there is no /proc."""
    return _field("VmRSS")


def peak_mb() -> float | None:
    """Peak resident memory since the last `reset_peak`; unlike getrusage's, it is not inherited from the parent."""
    return _field("VmHWM")


def peak_growth(run: Callable[[], Any]) -> float | None:
    """MB that a call adds, at its peak, to what is resident before it; None where there is no /proc."""
    release_unused()
    before = resident_mb()
    reset_peak()
    run()
    peak = peak_mb()
    return None if before is None or peak is None else max(0.0, peak - before)


def reset_peak() -> None:
    """Make the peak what is resident now; where that is not allowed, the peak stays that of the whole process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def release_unused() -> None:
    """Give back what malloc keeps of freed memory, as after loading weights: else a forward would use it unseen."""
    with contextlib.suppress(OSError, AttributeError):  # glibc's own
        ctypes.CDLL(None).malloc_trim(0)


def _field(name: str) -> float | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), None)
