"""Fetch the published type stubs of TensorRT and make them readable for mypy: `python tools/tensorrt_stubs.py FOLDER`.

The package can't be installed where TensorRT's libraries can't, so its wheel is unpacked. It was generated, and two of
its habits are no Python: parameters called `in`, and parameters without a default behind some with one.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PINNED = "tensorrt-stubs==10.13.0.35.1"


def fetch(folder: Path) -> None:
    """Download the wheel and write the repaired stubs into the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, PINNED]
        subprocess.run(command, check=True)
        for wheel in Path(temporary).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder)
    for path in folder.glob("tensorrt*/*.pyi"):
        path.write_text("".join(map(repaired, path.read_text().splitlines(keepends=True))))


def repaired(line: str) -> str:
    """The line with its parameters as Python takes them."""
    line = re.sub(r"([(,] *)in:", r"\1in_:", line)
    return re.sub(r" = None(?=.*, \w+: \w+\))", "", line) if line.lstrip().startswith("def ") else line


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
