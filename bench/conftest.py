"""What all suites share: the machine's facts, providers timed in turns, and the table of ratios at the end."""

from collections.abc import Callable
from typing import Any

import pytest
from gem_fast.bench.machine import machine, machine_line
from gem_fast.bench.records import Row
from gem_fast.bench.tables import SHORT, print_rows
from gem_fast.bench.turns import take_turns
from rich.console import Console

ROWS = pytest.StashKey[list[Row]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info.update(machine())


def pytest_report_header() -> str:
    return machine_line()


def pytest_terminal_summary(config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    print_rows(Console(), rows, SHORT)


@pytest.fixture
def in_turns(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., dict[str, Row]]:
    """`turns.take_turns` on this benchmark: `in_turns({"engine": one, "eager": other}, rounds=5)`."""

    def run(*arguments: Any, **settings: Any) -> dict[str, Row]:
        rows = take_turns(benchmark, *arguments, **settings)
        request.config.stash[ROWS].extend(rows.values())
        return rows

    return run
