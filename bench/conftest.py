"""What all benchmarks share: the machine's line, and providers timed in turns."""

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch


def machine_line() -> str:
    """The machine and the software that figures hold for."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{cpu}, {capability}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["gem_fast"] = machine_line()


def pytest_report_header() -> str:
    return machine_line()


@pytest.fixture
def in_turns(benchmark: Any) -> Callable[..., None]:
    """Time a function and its rivals in turns: rivals, function, rivals, function…

    The function's rounds are pytest-benchmark's own; the rivals' medians and how many times longer they take go into
    `extra_info`. Called as `in_turns(function, {"eager": other}, rounds=5)`. A single round, for what takes minutes,
    goes without warm-up.
    """

    def run(function: Callable[[], Any], rivals: dict[str, Callable[[], Any]], rounds: int) -> None:
        seconds: dict[str, list[float]] = {name: [] for name in rivals}

        def time_rivals() -> None:
            for name, rival in rivals.items():
                start = time.perf_counter()
                rival()
                seconds[name].append(time.perf_counter() - start)

        for warm in (function, *rivals.values()) if rounds > 1 else ():
            warm()
        benchmark.pedantic(function, setup=time_rivals, rounds=rounds, iterations=1)
        own = benchmark.stats.stats.data
        for name, measured in seconds.items():
            ratios = [theirs / ours for theirs, ours in zip(measured, own, strict=True)]
            benchmark.extra_info[f"{name} seconds"] = round(statistics.median(measured), 4)
            benchmark.extra_info[f"{name} / this"] = round(statistics.median(ratios), 3)
        print(f"\n{benchmark.name}: {statistics.median(own):.3f} s; {benchmark.extra_info}")

    return run
