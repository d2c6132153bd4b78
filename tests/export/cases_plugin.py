"""What the TensorRT plugins launch, run in Triton's interpreter and compared with the float64 reference.

`test_plugin.py` runs this file; by hand: `TRITON_INTERPRET=1 pytest tests/export/cases_plugin.py`.
"""

import sys
from pathlib import Path

import pytest
import torch
from gem_fast.export.tensorrt import kernels, plugin
from gem_fast.export.tensorrt.ptx import Compiled
from gem_fast.kernels.attention.reference import reference

sys.path.insert(0, str(Path(__file__).parent))
import fake_tensorrt

DTYPES = {torch.float32: "FLOAT", torch.float16: "HALF"}


@pytest.fixture
def run(monkeypatch):
    """A function (name, tensors, attributes, tactic) -> output of a plugin, as TensorRT would launch it."""
    registry = fake_tensorrt.install(monkeypatch)
    problems = []

    def compiled(problem, operation, tile):
        problems.append(problem)
        return Compiled(f"gem_{operation}", "", 128, 0, tile)

    monkeypatch.setattr(plugin, "compile_tactic", compiled)
    plugin.register("sm_90")

    def launch(name, tensors, attributes, tactic):
        registered = registry[f"gem_fast::{name}"]
        describe = [fake_tensorrt.from_shape_expr(tuple(t.shape), DTYPES[t.dtype]) for t in tensors]
        output = registered.describe(*describe, *attributes)
        assert tactic in registered.autotune(*describe, (output,))[0].tactics
        kernel_name, _, params, sizes = registered.aot_impl(*describe, *attributes, (output,), tactic)
        kernel = getattr(kernels, kernel_name)
        result = torch.full(output.sizes, torch.nan, dtype=next(t for t, n in DTYPES.items() if n == output.dtype))
        grid = (params.grid_x.value, params.grid_y.value, params.grid_z.value)
        problem = problems[-1]
        tile = plugin.tactics(problem, name.removeprefix("Gem").lower())[tactic - 1]
        constants = problem.constants(kernel, tile)
        kernel[grid](*tensors, *(size.value for size in sizes.items), result, **constants)
        return result

    return launch


@pytest.mark.parametrize(
    ("N", "H", "D", "mask", "iterations", "dtype", "tactic"),
    [
        (50, 2, 64, 0b111, 1, torch.float32, 1),
        (50, 2, 64, 0b111, 1, torch.float32, 2),
        (130, 1, 64, 0b101, 2, torch.float32, 1),
        (1, 2, 32, 0b100, 0, torch.float32, 1),
        (63, 2, 80, 0b011, 1, torch.float32, 2),
        (65, 1, 64, 0b111, 1, torch.float16, 1),
    ],
)
def test_the_plugins_compute_self_self_attention(run, N, H, D, mask, iterations, dtype, tactic):
    generator = torch.Generator().manual_seed(N)
    qkv = torch.randn(2, N, 3 * H * D, generator=generator).to(dtype)
    c = torch.tensor([4.0, 9.0])
    attributes = (H, D, mask)
    units = run("GemNormalize", [qkv], attributes, tactic)
    for _ in range(iterations):
        units = run("GemRefine", [units, c, qkv], attributes, tactic)
    assert not units.isnan().any()
    output = run("GemAssign", [units, qkv, c], attributes, tactic)
    chosen = tuple(i for i in range(3) if mask >> i & 1)
    truth = reference(
        qkv.double().view(2, N, 3, H, D), c.double(), iterations=iterations, projections=chosen, normalize=True
    )
    error = ((output.double() - truth).norm() / truth.norm()).item()
    assert error < (1e-6 if dtype == torch.float32 else 2e-3)
