"""Cases that need Triton's interpreter where there is no GPU, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SETTINGS = Path(__file__).parents[1] / "pyproject.toml"


def python(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    """A fresh interpreter that finds the packages that this one finds."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def run_cases(folder: Path, *files: Path) -> None:
    """Run files of tests in one process in a folder; the interpreter is chosen before anything imports Triton."""
    pytest.importorskip("triton")
    variables = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the interpreter's products are small
    if not torch.cuda.is_available():
        variables["TRITON_INTERPRET"] = "1"
    options = ["-c", str(SETTINGS), "-o", "pythonpath=", "-p", "no:cacheprovider", "-p", "tests.quick_interpreter"]
    run = python("-m", "pytest", *map(str, files), *options, cwd=folder, **variables)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
