"""The Triton kernels compiled for GPUs that are not there. `make gpu-report` compiles the rest of the table."""

import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from gem_fast.kernels.attention.triton import tiles
from gem_fast.kernels.attention.triton.tiles import FAMILIES, TABLE, Device, Tile, is_resident, split_width, tile_for
from gem_fast.kernels.triton_host import triton_version

from tools.compiled import SHARED_LIMIT
from tools.gpu_report import ARCHITECTURES, BY_ROW, SPILLED, Job, compile_job, table_jobs

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET"):
    pytest.skip("kernels that are interpreted can't be compiled", allow_module_level=True)

REPORT = Path(__file__).parents[2] / "bench" / "reports" / "gpu_static.json"
ATTENTION = ("refine", "assign", "assign_in_place", "attend", "resident")
PRODUCTION = [("sm_80", "refine", 64), ("sm_80", "assign", 64), ("sm_90", "refine", 80), ("sm_90", "assign", 64)]
PRODUCTION += [("sm_90", "resident", 64), ("sm_120", "refine", 64), ("gfx942", "refine", 64)]


def require_linker(arch):
    """Of LLVM, with which Triton before 3.5 links code for AMD's GPUs."""
    linked = triton_version() >= (3, 5) or os.environ.get("TRITON_HIP_LLD_PATH") or shutil.which("ld.lld")
    if arch.startswith("gfx") and not linked:
        pytest.skip("there is no ld.lld; TRITON_HIP_LLD_PATH names one, of LLVM 19")


@pytest.mark.parametrize(("arch", "operation", "D"), PRODUCTION)
def test_a_kernel_fits_its_gpu_and_multiplies_on_tensor_cores(arch, operation, D):
    require_linker(arch)
    tile = tile_for(Device(arch, 100), operation, D, torch.bfloat16)
    compiled = compile_job(Job(arch, operation, D, "bf16", "ieee", tile))
    assert compiled.spills == 0
    assert compiled.tensor_core > 0
    assert compiled.shared <= SHARED_LIMIT[arch]


@pytest.mark.parametrize(("arch", "operation"), [("sm_80", "refine"), ("sm_90", "assign"), ("sm_100", "refine")])
def test_float32_reaches_tensor_cores_in_tf32_only(arch, operation):
    tile = tile_for(Device(arch, 100), operation, 64, torch.float32)
    compiled = compile_job(Job(arch, operation, 64, "fp32", "tf32", tile))
    assert compiled.spills <= SPILLED
    assert compiled.tensor_core > 0
    assert compile_job(Job(arch, operation, 64, "fp32", "ieee", tile)).tensor_core == 0


@pytest.mark.parametrize("operation", ["refine", "assign", "attend"])
def test_exact_products_of_a_step_are_summed_by_themselves(operation, monkeypatch):
    """One term after the other onto a sum of 16,385 was off by 2.6e-6 on an H200, where 1.4e-6 is allowed."""
    monkeypatch.setattr("tools.compiled._read_cuda", lambda binary: binary.asm["ttgir"])
    code = compile_job(Job("sm_90", operation, 64, "fp32", "ieee", Tile(64, 32, 8, 2)))
    starts = re.findall(r"tt\.dot %\w+, %\w+, (%\w+)", code)
    assert len(starts) == 2
    assert all(re.search(rf"{start} = arith.constant dense<0.0", code) for start in starts)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_what_is_not_attention_fits_every_gpu(arch):
    """What goes row by row, and all of the decoding: no spills, shared memory and registers for several programs.

    Compiled for one GPU of each family, and held against the room that the others have too.
    """
    alike = [other for other in ARCHITECTURES if FAMILIES[other] == FAMILIES[arch]]
    require_linker(arch)
    jobs = [job for job in table_jobs() if job.arch == arch and job.operation in ("labels", "extremes", "heatmaps")]
    assert len(jobs) == 3
    rows = [job for job in table_jobs() if job.arch == arch and job.operation in (*BY_ROW, "quick_gelu")]
    jobs += [job for job in rows if job.dtype == "bf16" or (arch, job.dtype) == ("sm_90", "fp32")]
    assert len(jobs) == 3 + 4 * (2 if arch == "sm_90" else 1)
    for job in jobs:
        compiled = compile_job(job)
        assert compiled.spills == 0, job
        assert compiled.shared <= min(SHARED_LIMIT[each] for each in alike), job
        assert all((compiled.programs(each, job.tile.warps) or 2) >= 2 for each in alike), job


def test_the_report_covers_every_entry_of_the_table_and_none_is_bad(monkeypatch):
    """The samples above are compiled here; the whole table when the report is written, by `make gpu-report`."""
    monkeypatch.setattr(tiles, "triton_version", lambda: (3, 9))  # of the report; older ones change entries
    records = json.loads(REPORT.read_text())
    keys = ("arch", "operation", "width", "dtype", "precision", "tile")
    found = {tuple(str(record[key]) for key in keys): record for record in records}
    jobs = [asdict(job) for job in table_jobs()]
    missing = [job for job in jobs if tuple(str(job[key]) for key in keys) not in found]
    assert not missing, "`make gpu-report` is to be run again"
    for record in found.values():
        assert record["spills"] <= SPILLED, record
        assert record["shared"] <= SHARED_LIMIT[record["arch"]], record
        on_tensor_cores = record["dtype"] != "fp32" or record["precision"] == "tf32"
        if on_tensor_cores and record["operation"] in ATTENTION:
            assert record["tensor_core"] > 0, record


@pytest.mark.parametrize("arch", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=["fp16", "bf16", "fp32"])
def test_every_width_has_a_tile(arch, dtype):
    for D in range(1, 129):
        main, rest = split_width(D)
        assert D <= main + rest <= max(16, 2 * D)
        for operation in ("refine", "assign", "attend"):
            assert tile_for(Device(arch, 100), operation, main + rest, dtype) is not None


def test_a_gpu_that_is_not_in_the_table_gets_the_tiles_of_its_neighbours():
    assert tile_for(Device("sm_121", 48), "refine", 64, torch.bfloat16) == TABLE["mma"][16]["refine"][0][1]
    assert tile_for(Device("gfx950", 256), "refine", 64, torch.bfloat16) == TABLE["mfma"][16]["refine"][0][1]


@pytest.mark.parametrize(("version", "older"), [((3, 3), 17), ((3, 5), 17), ((3, 6), 12), ((3, 10), 0)])
def test_an_older_compiler_gets_tiles_that_do_not_spill_there(monkeypatch, version, older):
    """Smaller or of more warps, and only where something spilled; `docs/backends.md` tells how it was found."""
    monkeypatch.setattr(tiles, "triton_version", lambda: version)
    changed = 0
    for family, table in TABLE.items():
        for bits, entries in table.items():
            found = tiles.entries_of(family, bits)
            assert found.keys() == entries.keys()
            for operation in entries:
                assert [widest for widest, _ in found[operation]] == sorted({widest for widest, _ in found[operation]})
                changed += found[operation] != entries[operation]
                if operation != "resident":
                    assert found[operation][-1][0] == 128
    assert changed == older


def test_a_head_is_resident_where_it_fits_and_no_multiprocessor_idles():
    h100 = Device("sm_90", 132)
    assert is_resident(h100, heads=12, N=50, width=64, dtype=torch.bfloat16)
    assert is_resident(h100, heads=192, N=100, width=64, dtype=torch.bfloat16)
    assert not is_resident(h100, heads=12, N=100, width=64, dtype=torch.bfloat16)
    assert not is_resident(h100, heads=192, N=100, width=128, dtype=torch.bfloat16)
    assert not is_resident(h100, heads=192, N=50, width=64, dtype=torch.float32)
