"""The Triton kernels: their numerics, and what importing them needs."""

from pathlib import Path

from tests.interpreted import python, run_cases


def test_numerics(tmp_path):
    """In a process of its own: without a GPU it needs Triton's interpreter, chosen before anything imports Triton."""
    run_cases(tmp_path, *sorted(Path(__file__).parent.glob("cases_triton_*.py")))


def test_importing_needs_no_kernel_and_no_driver(tmp_path):
    code = "import sys, gem_fast.kernels.attention.triton as t, torch; print(t.why_not(torch.zeros(1, 4, 3, 1, 8)));"
    code += "print([name for name in sys.modules if name.startswith(t.__name__)])"
    run = python("-c", code, cwd=tmp_path)
    assert "qkv is on cpu" in run.stdout, run.stderr
    assert "refine" not in run.stdout
