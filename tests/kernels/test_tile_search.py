"""The search for tiles, with invented errors and times. `cases_triton_tune.py` runs it on the kernels."""

import pytest
import torch
from gem_fast.kernels.attention.triton.tile_file import Shape
from gem_fast.kernels.attention.triton.tile_search import (
    Bench,
    DoesNotFitError,
    Limits,
    Problem,
    trials_ahead,
    tune,
    why_not_fit,
)
from gem_fast.kernels.attention.triton.tiles import Device, Tile, tile_for

H100 = Device("sm_90", 132, "NVIDIA H100 80GB HBM3")
SHAPE = Shape("bfloat16", 64, 785, 12)
LIMITS = Limits(232_448)
IN_PLACE = "assign_in_place", None  # there is no such tile on an H100
PROBLEM = Problem(1, 785, 12, 64, "bfloat16")


def run(problem=PROBLEM, time=lambda operation, tile: 1.0, error=lambda operation, tile: 0.5):
    """Tune with invented errors and times, functions of the operation under trial and its tile."""
    trials = []

    def subject(options, tiles):
        """The operation under trial is the last one named; the others lie beside it."""
        operation = list(tiles)[-1]
        return operation, tiles[operation]

    bench = Bench(lambda o, t: error(*subject(o, t)), lambda o, t: time(*subject(o, t)), trials.append)
    entries = tune(problem, H100, LIMITS, bench, torch.bfloat16)
    return {entry.operation: entry for entry in entries}, trials


def test_the_fastest_right_candidate_is_chosen():
    fastest = Tile(64, 128, 4, 2)
    entries, trials = run(time=lambda operation, tile: 0.5 if tile == fastest else 1.0)
    assert entries["refine"].tile == entries["assign"].tile == fastest
    assert (entries["refine"].ms, entries["refine"].built_in_ms) == (0.5, 1.0)
    assert set(entries) == {"refine", "assign", "assign_in_place", "attend"}
    assert sum(trial.verdict == "timed" for trial in trials) > 100


def test_noise_does_not_replace_the_built_in_tile():
    entries, _ = run(time=lambda operation, tile: 0.99 if tile == Tile(64, 64, 4, 2) else 1.0)
    assert entries["refine"].tile == tile_for(H100, "refine", 64, torch.bfloat16)


@pytest.mark.parametrize("error", [1.01, float("nan"), float("inf")])
def test_a_wrong_candidate_is_told_and_never_timed(error):
    tempting = Tile(64, 64, 4, 2)
    timed = []

    def time(operation, tile):
        timed.append(tile)
        return 0.1 if tile == tempting else 1.0

    entries, trials = run(time=time, error=lambda operation, tile: error if tile == tempting else 0.9)
    assert tempting not in timed
    assert all(entry.tile != tempting for entry in entries.values())
    assert [trial.verdict for trial in trials if trial.tile == tempting] == ["wrong"] * 4


@pytest.mark.parametrize(
    ("raised", "verdict"), [(DoesNotFitError("shared memory"), "skipped"), (TypeError("bad\nlines"), "failed")]
)
def test_a_candidate_that_fails_or_does_not_fit_is_told_and_passed_over(raised, verdict):
    def error(operation, tile):
        if tile == Tile(64, 64, 4, 2):
            raise raised
        return 0.5

    entries, trials = run(error=error, time=lambda operation, tile: 0.1 if tile == Tile(64, 64, 4, 2) else 1.0)
    mine = [trial for trial in trials if trial.tile == Tile(64, 64, 4, 2)]
    assert {trial.verdict for trial in mine} == {verdict}
    assert mine[0].reason == str(raised).splitlines()[0]
    assert all(entry.tile != Tile(64, 64, 4, 2) for entry in entries.values())


def test_wrong_built_in_tiles_end_the_search():
    with pytest.raises(RuntimeError, match=r"built-in tile of refine.*wrong"):
        run(error=lambda operation, tile: 2.0)


def test_later_operations_are_tried_with_the_best_of_the_earlier():
    fastest, seen = Tile(256, 64, 8, 2), []

    def time(options, tiles):
        operation = list(tiles)[-1]
        seen.append((operation, tiles.get("refine")))
        return 0.5 if tiles[operation] == fastest else 1.0

    tune(PROBLEM, H100, LIMITS, Bench(lambda o, t: 0.0, time), torch.bfloat16)
    assert {refine for operation, refine in seen if operation == "assign"} == {fastest}


@pytest.mark.parametrize("N", [50, 785])
def test_what_is_compiled_ahead_is_what_is_tried(N):
    problem, tried = Problem(8, N, 12, 64, "bfloat16"), []
    bench = Bench(lambda options, tiles: tried.append((options, tiles)) or 0.0, lambda options, tiles: 1.0)
    tune(problem, H100, LIMITS, bench, torch.bfloat16)
    ahead = list(trials_ahead(problem, H100, LIMITS, torch.bfloat16))
    assert len(ahead) > 190
    assert [each for each in tried if each not in ahead] == [
        each for each in tried if list(each[1].items())[-1] == IN_PLACE
    ]
    assert all(each in tried for each in ahead)


@pytest.mark.parametrize(("faster", "tile"), [(0.5, Tile(64, 64, 4, 1)), (2.0, None)])
def test_one_launch_for_everything_is_held_against_the_tiled_kernels(faster, tile):
    entries, _ = run(
        Problem(8, 50, 12, 64, "bfloat16"),
        time=lambda operation, tile: faster if operation == "resident" and tile else 1.0,
    )
    assert entries["resident"].tile == tile


def test_what_cannot_fit_is_not_compiled():
    assert "registers" in why_not_fit(Tile(256, 128, 4, 1), "refine", SHAPE, LIMITS)
    assert "shared memory" in why_not_fit(Tile(64, 128, 8, 4), "assign", SHAPE, Limits(65_536))
    assert why_not_fit(Tile(64, 128, 8, 4), "refine", SHAPE, Limits(65_536)) is None
    assert "785 tokens" not in (why_not_fit(Tile(128, 128, 8, 1), "refine", SHAPE, LIMITS) or "")
    assert "20 tokens" in why_not_fit(Tile(64, 32, 8, 1), "refine", Shape("bfloat16", 64, 20, 12), LIMITS)
    assert "unroll" in why_not_fit(Tile(128, 128, 8, 1), "refine", Shape("float32", 64, 785, 12), LIMITS)
