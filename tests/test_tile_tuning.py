"""`gem-fast tune` and what `gem-fast info` says of it, on machines without a GPU too."""

import sys
from dataclasses import replace

import pytest
import torch
from gem_fast.kernels.attention.triton import tile_file, tile_search
from typer.testing import CliRunner

from gem_fast.cli import app
from gem_fast.tile_tuning import config_of, problems_of, tune_tiles

pytest.importorskip("triton")
run = CliRunner().invoke
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@no_gpu
def test_without_a_gpu_tune_says_so_and_leaves_with_2(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = run(app, ["tune"])
    assert result.exit_code == 2
    assert "tune measures on a CUDA or ROCm device, and torch finds none here" in result.output
    assert not list(tmp_path.iterdir())
    result = run(app, ["tune", "--device", "cpu"])
    assert result.exit_code == 2
    assert "qkv is on cpu, not on a CUDA or ROCm device" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--heads", "12"], "go together"),
        (["--tokens", "12", "--head-width", "64"], "go together"),
        (["--model", "ViT-Q-3"], "ViT-B-16"),
        (["--size", "450"], "a multiple of ViT-B-16's patch, 16, got 450"),
        (["--device", "abacus"], "abacus"),
        (["--dtype", "int8"], "tf32"),
    ],
)
def test_bad_arguments_are_named(arguments, told):
    result = run(app, ["tune", *arguments])
    assert result.exit_code == 2
    assert told in result.output


@pytest.mark.parametrize("more", [[], ["--verbose"]], ids=["quiet", "verbose"])
def test_what_is_tuned_and_told(monkeypatch, tmp_path, more):
    """What is wrong is told in any case, once for a problem what it is, of the table what was asked for."""
    problems = [tile_search.Problem(batch, 197, 12, 64, "float16") for batch in (1, 8)]
    calls = []

    def tune_tiles(asked, *, device, out, report):
        calls.append((asked, device, str(out)))
        report(asked[0], tile_search.Trial("one", None, "timed", ms=0.5))
        report(asked[0], tile_search.Trial("two", None, "wrong", reason="off by 2"))
        shapes = asked[0].shape, replace(asked[0].shape, N=5)
        return out, tile_file.TileTable("GPU", "3", tuple(tile_file.Entry("o", s, None, 0.25, 0.5) for s in shapes))

    monkeypatch.setattr("gem_fast.tile_tuning.tune_tiles", tune_tiles)
    given = ["--heads", "12", "--tokens", "197", "--head-width", "64", "--dtype", "fp16", "--device", "cuda:1"]
    result = run(app, ["tune", *given, "--out", "t.json", *more])
    assert result.exit_code == 0, result.output
    assert calls == [(problems, "cuda:1", "t.json")]
    assert result.stderr == "  two none: wrong, off by 2\n"
    assert result.stdout.splitlines() == [
        "float16: 1 × 12 heads, 197 tokens of 64 channels",
        *(["  one none: timed, 0.5000 ms"] if more else []),
        "float16 12×197 o: none, 0.2500 ms, built-in 0.5000 ms",
        "written to t.json",
    ]
    run(app, ["tune", *given, "--batch-size", "3"])
    assert [each.B for each in calls[1][0]] == [3]


def test_problems_are_those_of_the_model():
    problems = problems_of("ViT-H-14", [224, 448], [1, 4], ["float16"])
    assert [(p.B, p.N, p.H, p.D) for p in problems] == [
        (1, 257, 16, 80),
        (4, 257, 16, 80),
        (1, 1025, 16, 80),
        (4, 1025, 16, 80),
    ]
    assert problems[0].shape == tile_file.Shape("float16", 80, 257, 16)
    assert problems == problems_of("ViT-H-14", [224, 448], [1, 4], ["fp16"])
    assert [p.kind for p in problems_of("ViT-B-16", [224], [1], ["bf16", "tf32"])] == ["bfloat16", "tf32"]
    assert config_of("gem-tiny").patch_size


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"one of float32, bfloat16, float16 .*, got int8; tf32"):
        tune_tiles(problems_of("ViT-B-16", [224], [1], ["int8"]))


@no_gpu
def test_info_tells_of_the_variable(monkeypatch):
    monkeypatch.delenv(tile_file.VARIABLE, raising=False)
    assert "GEM_FAST_TILES is not set" in run(app, ["info"]).output
    monkeypatch.setenv(tile_file.VARIABLE, "/some/tiles.json")
    assert "GEM_FAST_TILES is /some/tiles.json" in run(app, ["info"]).output


def test_info_names_the_table_of_each_gpu(monkeypatch, tmp_path):
    from gem_fast.kernels import first_use
    from gem_fast.kernels.attention.triton import tiles
    from gem_fast.kernels.attention.triton.tiles import Device

    broken = tmp_path / "broken.json"
    broken.write_text("{")
    monkeypatch.setenv(tile_file.VARIABLE, str(broken))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "A GPU")
    monkeypatch.setattr(tiles, "device_of", lambda device: Device("sm_90", 132, "A GPU"))
    # The command's module, which its function hides by name; there is no GPU to make tensors on.
    monkeypatch.setattr(sys.modules["gem_fast.cli.info"], "who_serves", lambda device: iter(()))
    monkeypatch.setattr(first_use, "describe", lambda index: iter(()))
    shown = "".join(run(app, ["info"], env={"COLUMNS": "60"}).output.split())  # a long path goes on in the next line
    assert f"cuda:0:thetiletable{broken}isdamagedorforeign" in shown
    monkeypatch.setenv(tile_file.VARIABLE, tile_file.OFF)
    assert "cuda:0: built in" in run(app, ["info"]).output
