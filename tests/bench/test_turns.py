"""What the suites write: providers timed in turns by pytest-benchmark, and read back as rows."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from gem_fast.bench import turns
from gem_fast.bench.compare import compare
from gem_fast.bench.records import by_group, read_document, read_rows

pytest.importorskip("pytest_benchmark")

SUITE = """
import time
import numpy as np
import pytest
from gem_fast.bench.turns import Work, take_turns

CALLS = []

def call(name, seconds):
    CALLS.append(name)
    time.sleep(seconds)

def test_three(benchmark):
    providers = {"fast": lambda: call("f", 0.001), "slow": lambda: call("s", 0.02), "other": lambda: call("o", 0.005)}
    work = {"fast": Work(flops=2e6, traffic=1e6, images=3)}
    rows = take_turns(benchmark, providers, rounds=4, work=work)
    assert list(rows) == ["slow", "other", "fast"]
    assert CALLS == ["f", "f", "s", "s", "o", "o"] + ["s", "o", "f"] * 4

def test_once(benchmark):
    CALLS.clear()
    providers = {"fast": lambda: call("f", 0), "slow": lambda: call("s", 0)}
    take_turns(benchmark, providers, rounds=1, added_mb={"fast": 7.0})
    assert CALLS == ["s", "f"]
"""
CONFTEST = """
from gem_fast.bench import turns
turns.machine_ceiling = lambda dtype: {"flops": 1e9, "bytes": 1e9}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The file that pytest-benchmark writes of the suite above."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "test_suite.py").write_text(SUITE)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-only", "--benchmark-json=run.json"]
    # A worker of xdist tells what it starts that nothing can be timed.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout
    return read_document(folder / "run.json")


def test_every_provider_becomes_a_row_of_the_benchmarks_case(run):
    three, once = by_group(read_rows(run)).values()
    assert [row.provider for row in three] == ["slow", "other", "fast"]
    assert [len(row.seconds) for row in three] == [4, 4, 4]
    slow, _, fast = three
    assert slow.at(0.5) > 0.02 > fast.at(0.5) > 0.001
    assert fast.extra["tflops"] == pytest.approx(2e6 / fast.at(0.5) / 1e12)
    assert fast.extra["share_of_ceiling"] == pytest.approx(2e-3 / fast.at(0.5))
    assert fast.extra["images_per_second"] == pytest.approx(3 / fast.at(0.5))
    assert "tflops" not in slow.extra
    assert [row.extra["added_mb"] for row in once] == [None, 7.0]
    assert json.dumps(slow.extra)


def test_two_runs_of_a_suite_are_compared_beside_a_provider(run):
    rows = read_rows(run)
    changes = compare(rows, rows, relative_to="slow")
    assert {change.ratio for change in changes} == {1.0}
    assert len(changes) == 3  # other and fast of one benchmark, fast of the other


def test_added_memory_is_what_the_second_call_takes():
    kept = []

    def call():
        if not kept:
            kept.append(np.ones((48, 2**17)))  # 48 MB that stay
        np.ones((32, 2**17)).sum()

    assert turns._warm(call) == pytest.approx(32, abs=4)
