"""The Triton kernels: their numerics, and what importing them needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent
SETTINGS = FOLDER.parents[1] / "pyproject.toml"


def python(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    """A fresh interpreter that finds the packages that this one finds."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("operation", ["attention", "layer_norm", "decoding", "tune"])
def test_numerics(operation, tmp_path):
    """In a process of its own: without a GPU it needs Triton's interpreter, chosen before anything imports Triton."""
    pytest.importorskip("triton")
    variables = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    cases = str(FOLDER / f"cases_triton_{operation}.py")
    options = ["-c", str(SETTINGS), "-o", "pythonpath=", "-p", "no:cacheprovider"]
    run = python("-m", "pytest", cases, *options, cwd=tmp_path, **variables)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout


def test_importing_needs_no_kernel_and_no_driver(tmp_path):
    code = "import sys, gem_fast.kernels.attention.triton as t, torch; print(t.why_not(torch.zeros(1, 4, 3, 1, 8)));"
    code += "print([name for name in sys.modules if name.startswith(t.__name__)])"
    run = python("-c", code, cwd=tmp_path)
    assert "qkv is on cpu" in run.stdout, run.stderr
    assert "refine" not in run.stdout
