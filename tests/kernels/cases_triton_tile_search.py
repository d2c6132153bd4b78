"""`tune` on real kernels, on the GPU or in Triton's interpreter; `test_triton.py` runs this file."""

import itertools

import pytest
import torch
from gem_fast.kernels.attention.triton import call, launch, tile_file, tile_search, triton_attention
from gem_fast.kernels.attention.triton.tile_search import Problem
from gem_fast.kernels.attention.triton.tiles import Tile
from triton.runtime.errors import OutOfResources

from gem_fast.tile_tuning import tune_tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROBLEM = Problem(1, 20, 1, 16, "float32")


def make_clock():
    """Times that fall with each call, so that the last candidate of an operation is the fastest."""
    times = (0.9**call for call in itertools.count())

    def time(call):
        call()
        return next(times)

    return time


def attention(N=20):
    qkv = torch.randn(1, N, 3, 1, 16, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    c = torch.full((1,), 3.0, device=DEVICE)
    return triton_attention(qkv, c, iterations=1, projections=(0, 1, 2), normalize=True)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """A handful of candidates: the interpreter takes its time."""
    all_of = tile_search.candidates
    some = (Tile(16, 32, 4, 1), Tile(16, 32, 8, 4), Tile(256, 128, 4, 4), Tile(32, 32, 8, 3), Tile(32, 32, 8, 4))
    monkeypatch.setattr(
        tile_search, "candidates", lambda name, shape: all_of(name, shape) if name == "resident" else some
    )


@pytest.fixture
def wrong_tile(monkeypatch):
    """One tile whose kernel is wrong, and one that does not fit."""
    correct = launch.launch_attention

    def attention(*args, tiles, **kwargs):
        if tiles.get("refine") == Tile(16, 32, 8, 4):
            raise OutOfResources(1, 0, "shared memory")
        result = correct(*args, tiles=tiles, **kwargs)
        return result * 1.01 if tiles.get("assign") == Tile(32, 32, 8, 4) else result

    monkeypatch.setattr("gem_fast.kernels.attention.triton.tile_trials.launch_attention", attention)


@pytest.mark.usefixtures("wrong_tile")
def test_tune_verifies_times_and_writes_what_the_engine_then_takes(tmp_path, monkeypatch):
    trials, path = [], tmp_path / "tiles.json"
    monkeypatch.setenv(tile_file.VARIABLE, tile_file.OFF)
    before = attention()
    clock = make_clock()
    written, table = tune_tiles(
        [PROBLEM], device=DEVICE, out=path, report=lambda problem, trial: trials.append(trial), time=clock
    )
    verdicts = {(trial.operation, trial.tile): trial.verdict for trial in trials}
    assert verdicts["refine", Tile(16, 32, 8, 4)] == "skipped"
    assert verdicts["assign", Tile(32, 32, 8, 4)] == "wrong"
    assert set(verdicts.values()) == {"timed", "skipped", "wrong"}
    chosen = {entry.operation: entry.tile for entry in table.entries}
    assert chosen["refine"] == Tile(32, 32, 8, 4)
    assert chosen["assign"] == Tile(32, 32, 8, 3)
    assert chosen["resident"] == Tile(32, 32, 4, 1)
    monkeypatch.setenv(tile_file.VARIABLE, str(written))
    launched = []
    resident = call.Call.resident
    monkeypatch.setattr(call.Call, "resident", lambda *a: (launched.append("resident"), resident(*a)))
    assert torch.allclose(attention(), before, atol=1e-6)
    assert launched == ["resident"]


def test_a_second_run_keeps_the_entries_of_other_shapes(tmp_path, monkeypatch):
    monkeypatch.setattr(tile_search, "candidates", lambda name, shape: ())
    path = tmp_path / "tiles.json"
    for N in (3, 5):
        _, table = tune_tiles([Problem(1, N, 1, 16, "float32")], device=DEVICE, out=path, time=make_clock())
    assert {entry.shape.N for entry in table.entries} == {3, 5}
    path.write_text("something else")
    with pytest.raises(tile_file.TileFileError, match="damaged or foreign"):
        tune_tiles([Problem(1, 3, 1, 16, "float32")], device=DEVICE, out=path)
    assert path.read_text() == "something else"


def test_a_candidate_that_leaves_memory_unwritten_is_wrong(tmp_path, monkeypatch):
    correct, trials = launch.launch_attention, []

    def attention(*args, tiles, **kwargs):
        result = correct(*args, tiles=tiles, **kwargs)
        return (
            result.index_fill(1, torch.tensor([4], device=result.device), torch.nan)
            if tiles.get("refine") == Tile(16, 32, 4, 1)
            else result
        )

    monkeypatch.setattr("gem_fast.kernels.attention.triton.tile_trials.launch_attention", attention)
    tune_tiles(
        [Problem(1, 5, 1, 16, "float32")], device=DEVICE, out=tmp_path / "t", time=lambda call: 1.0,
        report=lambda problem, trial: trials.append(trial),
    )  # fmt: skip
    assert [t.verdict for t in trials if (t.operation, t.tile) == ("refine", Tile(16, 32, 4, 1))] == ["wrong"]
