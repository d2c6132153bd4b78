"""What starting takes: `python -m tools.starting` (`make starting`), with nothing else running.

Commands in fresh processes, in turns with `import torch` alone.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from statistics import median

from gem_fast.demo import SAMPLES

_ROUNDS = 5
_GEM_FAST = (sys.executable, "-m", "gem_fast")
_BASE = "python -c 'import torch'"
_HEADS = ["command", "s", "times torch", "peak MB", "MB above torch"]


def commands(out: str) -> dict[str, Sequence[str]]:
    """What is started, by its name in the table; `out` is a folder for what it writes."""
    image = str(SAMPLES / "car_tree_house.png")
    segment = ("segment", image, "--prompt", "car", "--prompt", "tree", "--out", out, "--overwrite")
    return {
        _BASE: (sys.executable, "-c", "import torch"),
        "gem-fast segment IMAGE --prompt car --prompt tree": (*_GEM_FAST, *segment),
        "gem-fast models": (*_GEM_FAST, "models"),
        "gem-fast --help": (*_GEM_FAST, "--help"),
        "gem-fast info": (*_GEM_FAST, "info"),
    }


def started(command: Sequence[str]) -> tuple[float, float]:
    """Seconds of a command in a process of its own, and its peak memory in MB; CalledProcessError if it fails.

    What a process counts as its peak begins with what its parent has, so this one imports little before.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds, process.returncode = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command))
    return seconds, used.ru_maxrss / 1024


def starting_rows(found: dict[str, list[tuple[float, float]]]) -> list[list[str]]:
    """Medians of each command, its seconds over those of `import torch` turn by turn, and its memory above that."""
    rows = []
    for name, turns in found.items():
        ratio = median(own[0] / base[0] for own, base in zip(turns, found[_BASE], strict=True))
        above = median(own[1] - base[1] for own, base in zip(turns, found[_BASE], strict=True))
        seconds, memory = (median(column) for column in zip(*turns, strict=True))
        rows.append([f"`{name}`", f"{seconds:.2f}", f"{ratio:.2f}", f"{memory:,.0f}", f"{above:+,.0f}"])
    return rows


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as out:
        asked = commands(out)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
        for name, command in list(asked.items()) * _ROUNDS:
            found[name].append(started(command))
    from gem_fast.bench.machine import machine_line
    from gem_fast.bench.tables import markdown_table

    print(f"{machine_line()}; {_ROUNDS} rounds in turns, medians\n")
    print("\n".join(markdown_table(_HEADS, starting_rows(found))))


if __name__ == "__main__":
    main()
