"""The TensorRT plugins: their signatures, what they launch, and their kernels as PTX for every architecture."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gem_fast.export.tensorrt.plugin import NODES, PADDING, register
from gem_fast.export.tensorrt.ptx import ARCHITECTURES, SHARED_LIMIT, Problem, compile_tactic, tactics, without_scratch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("kernels that are interpreted can't be compiled", allow_module_level=True)
FOLDER = Path(__file__).parent
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
sys.path.insert(0, str(FOLDER))
import fake_tensorrt  # noqa: E402

PTX = {"sm_100": "8.6", "sm_120": "8.7"}  # the oldest that know the architecture; 8.0 elsewhere
PARAMETERS = {"normalize": 4, "refine": 6, "assign": 6}  # inputs, two sizes, the output


@pytest.fixture
def registry(monkeypatch):
    """What TensorRT would know after `register`; the stand-in checks names, annotations and their order."""
    registry = fake_tensorrt.install(monkeypatch)
    register("sm_90")
    return registry


def described(B=2, N=197, heads=12, width=64, dtype="BF16"):
    return fake_tensorrt.from_shape_expr((B, N, 3 * heads * width), dtype)


def test_what_is_registered(registry):
    assert set(registry) == {f"gem_fast::{name}" for name in NODES}
    for plugin in registry.values():
        assert list(plugin.attributes) == ["heads", "width", "projections"]
        assert plugin.autotune
        assert plugin.aot_impl


@pytest.mark.parametrize(("N", "padded"), [(1, 128), (128, 128), (129, 256), (785, 896)])
def test_shapes_and_types(registry, N, padded):
    qkv, c = described(N=N), fake_tensorrt.from_shape_expr((2,), "FLOAT")
    units = registry["gem_fast::GemNormalize"].describe(qkv, 12, 64, 0b101)
    assert (units.sizes, units.dtype) == ((2, 2, 12, padded, 64), "BF16")
    refined = registry["gem_fast::GemRefine"].describe(units, c, qkv, 12, 64, 0b101)
    assert refined == units
    output = registry["gem_fast::GemAssign"].describe(units, qkv, c, 12, 64, 0b101)
    assert (output.sizes, output.dtype) == ((2, N, 768), "BF16")


def test_each_tactic_is_compiled_and_launched_over_all_rows(registry):
    qkv = described(N=785)
    plugin = registry["gem_fast::GemNormalize"]
    units = plugin.describe(qkv, 12, 64, 0b111)
    combination = plugin.autotune(qkv, (units,))[0]
    assert (combination.types, combination.layouts, combination.tactics) == ("BF16, BF16", "LINEAR", [1, 2])
    rows = []
    for tactic in combination.tactics:
        name, ptx, params, sizes = plugin.aot_impl(qkv, 12, 64, 0b111, (units,), tactic)
        assert f".visible .entry {name}(" in ptx
        assert [size.value for size in sizes.items] == [785, 896]
        assert (params.grid_y.value, params.grid_z.value) == (36, 2)
        rows.append(896 // params.grid_x.value)
    assert rows == [64, 32]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_ptx_for_each_architecture(arch, tmp_path):
    """In bf16: the entry, its parameters, shared memory, and that ptxas takes it and spills nothing."""
    for operation, count in PARAMETERS.items():
        problem = Problem(arch, torch.bfloat16, 12, 64, 0b111)
        compiled = compile_tactic(problem, operation, tactics(problem, operation)[0])
        assert compiled.name == f"gem_{operation}"
        assert compiled.shared <= SHARED_LIMIT
        assert f".reqntid {compiled.threads}" in compiled.ptx
        entry = re.search(rf"\.visible \.entry {compiled.name}\((.*?)\)", compiled.ptx, re.DOTALL)
        kinds = re.findall(r"\.param \.(\w+)", entry[1])
        assert kinds == ["u64"] * (count - 3) + ["u32", "u32", "u64"]
        target = re.search(r"\.target (\S+)", compiled.ptx)[1]
        assert target.removesuffix("a") == arch
        assert f".version {PTX.get(arch, '8.0')}\n" in compiled.ptx
        file = tmp_path / f"{operation}.ptx"
        file.write_text(compiled.ptx)
        ptxas = TOOLS / ("ptxas-blackwell" if arch in ("sm_100", "sm_120") else "ptxas")
        if not ptxas.exists():  # before Triton 3.5
            ptxas = TOOLS / "ptxas"
        command = [ptxas, "-v", f"-arch={target}", file, "-o", tmp_path / "out.cubin"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert re.search(r"\b0 bytes spill stores, 0 bytes spill loads", run.stderr), run.stderr


@pytest.mark.parametrize(("width", "dtype"), [(128, torch.bfloat16), (80, torch.float16), (64, torch.float32)])
def test_wide_heads_and_float32_shrink_into_48_kib(width, dtype):
    for tile in tactics(Problem("sm_90", dtype, 16, width, 0b111), "assign"):
        compiled = compile_tactic(Problem("sm_90", dtype, 16, width, 0b111), "assign", tile)
        assert 0 < compiled.shared <= SHARED_LIMIT
        assert PADDING % compiled.tile.rows == PADDING % compiled.tile.keys == 0


def test_a_parameter_that_is_read_is_not_taken_off():
    ptx = ".visible .entry k(\n\t.param .u64 k_param_0,\n\t.param .u64 k_param_1\n)\n{ ld [k_param_1]; }"
    assert without_scratch(ptx, 2) == ptx
    with pytest.raises(ValueError, match="k reads its parameter 1"):
        without_scratch(ptx, 1)
    assert "k_param_1" not in without_scratch(ptx.replace("[k_param_1]", "[k_param_0]"), 1)


def test_numerics(tmp_path):
    """In a process of its own: Triton's interpreter is chosen before anything imports Triton."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "TRITON_INTERPRET": "1"}
    settings = ["-c", str(FOLDER.parents[1] / "pyproject.toml"), "-o", "pythonpath=", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", str(FOLDER / "cases_plugin.py"), *settings]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
