"""The native CPU kernel beside the rest of torch: threads, torch.library, graphs, what it can't serve."""

import re
import subprocess
import sys

import pytest
import torch
from gem_fast.kernels import self_self_attention
from gem_fast.kernels.attention.cpu import query_key_cpu, why_not
from gem_fast.kernels.attention.self_self import OPERATION
from gem_fast.kernels.cpu_library import paths, why_missing

from tests.kernels.cpu_attention import QKV, error, make_qkv, native

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=f"cpu can't serve: {why_missing()}")


@pytest.mark.parametrize("threads", [1, 2, 5, 16, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_any_number_of_threads(threads, dtype):
    """With more threads than heads, projections and queries go to threads of their own."""
    qkv, c = make_qkv(2, 300, 3, 64, dtype=dtype), torch.tensor([2.0, 5.0])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = native(qkv, c), native(qkv, c, 1, (0, 2)), query_key_cpu(qkv)
        torch.set_num_threads(threads)
        results = native(qkv, c), native(qkv, c, 1, (0, 2)), query_key_cpu(qkv)
    finally:
        torch.set_num_threads(before)
    limit = 1e-6 if dtype == torch.float32 else 1e-3
    for result, alone in zip(results, expected, strict=True):
        assert error(result, alone.double()) < limit
    torch.testing.assert_close(results[2], expected[2], rtol=0, atol=0)


THREADS = """
import pathlib, sys, torch
from gem_fast.kernels.attention.cpu import cpu
torch.set_num_threads(int(sys.argv[1]))
torch.randn(600, 600) @ torch.randn(600, 600)
count = lambda: len(list(pathlib.Path("/proc/self/task").iterdir()))
before = count()
cpu(torch.randn(1, 300, 3, 12, 64), torch.tensor([3.0]), iterations=1, projections=(0, 1, 2))
maps = pathlib.Path("/proc/self/maps").read_text().split()
print(count() - before, len({p for p in maps if any(name in p for name in ("libgomp", "libiomp", "libomp"))}))
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_torch_threads_are_the_only_ones(threads):
    """In a process of its own: no thread is added to torch's, and one OpenMP runtime is mapped."""
    told = subprocess.run([sys.executable, "-c", THREADS, str(threads)], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["0", "1"]


def test_opcheck():
    for dtype in (torch.float32, torch.bfloat16):
        qkv, c = make_qkv(2, 30, 2, 32, dtype=dtype), torch.tensor([2.0, 5.0])
        operation = torch.ops.gem_fast.self_self_attention_cpu.default
        torch.library.opcheck(operation, (qkv, c, 1, [0, 2], paths()[-1]))


def module():
    class Attention(torch.nn.Module):
        def forward(self, qkv, c):
            return self_self_attention(qkv * 1.0, c) + 1

    return Attention()


def test_compiles_and_exports_whole():
    qkv, c = make_qkv(2, 30, 2, 32), torch.tensor([2.0, 5.0])
    assert OPERATION.choose(None, qkv, c, 1, QKV, True).name == "cpu"
    eager = module()(qkv, c)
    compiled = torch.compile(module(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(qkv, c), eager)
    tokens = torch.export.Dim("tokens", min=2, max=500)
    exported = torch.export.export(module(), (qkv, c), dynamic_shapes={"qkv": {1: tokens}, "c": None})
    assert "self_self_attention_cpu" in exported.graph_module.code
    longer = make_qkv(2, 77, 2, 32)
    torch.testing.assert_close(exported.module()(longer, c), module()(longer, c))


def test_empty_batch():
    assert native(torch.zeros(0, 5, 3, 2, 16), torch.zeros(0)).shape == (0, 5, 32)


@pytest.mark.parametrize(
    ("qkv", "options", "reason"),
    [
        (torch.zeros(1, 4, 3, 1, 12), {}, "multiple of 8.*12"),
        (torch.zeros(1, 4, 3, 1, 136), {}, "up to 128.*136"),
        (torch.zeros(1, 4, 3, 1, 8, dtype=torch.float64), {}, "float64"),
        (torch.zeros(1, 4, 3, 1, 8, requires_grad=True), {}, "gradient"),
        (torch.zeros(1, 4, 3, 1, 8), {"normalize": False}, "normalize=False"),
    ],
)
def test_what_it_cannot_serve_fails_loudly_by_name_and_falls_back_by_itself(qkv, options, reason):
    arguments = qkv, torch.ones(1), 1, QKV, options.get("normalize", True)
    assert re.search(reason, why_not(*arguments))
    assert OPERATION.choose(None, *arguments).name in ("sdpa", "reference")
    with pytest.raises(ValueError, match=reason):
        self_self_attention(qkv, torch.ones(1), backend="cpu", **options)


def test_unknown_path_is_named():
    with pytest.raises(ValueError, match=r"'mmx'.*avx2"):
        native(torch.zeros(1, 4, 3, 1, 8), torch.ones(1), path="mmx")
