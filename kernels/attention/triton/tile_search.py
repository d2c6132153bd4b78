"""The search behind `gem-fast tune`: every tile that can fit is verified, then timed, operation by operation.

Nothing here runs by itself: the engine only reads the table that a user asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from .tile_file import Entry, Shape
from .tiles import Device, Tile, split_width, tile_for

Tiles: TypeAlias = Mapping[str, Tile | None]
_REGISTERS = 255  # of a thread, at most, on every architecture
_UNROLLED = 4096  # float32 products of a thread in a step, which are unrolled: beyond, compiling takes minutes
_GAIN = 0.98  # a candidate replaces the tile that is there only if it is faster than that: the rest is noise
_REFINING = {"iterations": 1, "projections": (0, 1, 2), "normalize": True}
_OPTIONS: dict[str, dict[str, Any]] = {  # of the attention that an operation is tried in
    "refine": _REFINING,
    "assign": _REFINING,
    "assign_in_place": _REFINING | {"iterations": 0},
    "attend": {"iterations": 0, "projections": (2,), "normalize": False},
    "resident": _REFINING,
}


class DoesNotFitError(Exception):
    """A candidate needs more shared memory, registers or threads than the GPU has."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Attention to tune for: B images, N tokens, H heads of D channels, `kind` one of `tile_file.KINDS`."""

    B: int
    N: int
    H: int
    D: int
    kind: str

    @property
    def shape(self) -> Shape:
        return Shape(self.kind, sum(split_width(self.D)), self.N, self.B * self.H)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a GPU gives one program: bytes of shared memory, and threads of a warp."""

    shared: int
    warp: int = 32


@dataclass(frozen=True, slots=True)
class Step:
    """An operation to choose a tile for, and the call of the attention that is timed with it."""

    operation: str
    options: dict[str, Any]
    others: dict[str, Tile | None]


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a candidate: `timed`, `wrong`, `failed` or `skipped`, and why; tile None is doing without."""

    operation: str
    tile: Tile | None
    verdict: str
    ms: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """How candidates are tried.

    Attributes:
        error: `(options, tiles)` to how far the result is from float64, in units of what is allowed: right up to 1.
            Raises DoesNotFitError for tiles that need more than the GPU has.
        time: `(options, tiles)` to the median time in ms.
        report: called with each trial as it ends.
    """

    error: Callable[[dict[str, Any], Tiles], float]
    time: Callable[[dict[str, Any], Tiles], float]
    report: Callable[[Trial], None] = lambda trial: None


def candidates(operation: str, shape: Shape) -> Iterator[Tile]:
    """Tiles that may be good for an operation, whether they fit or not."""
    if operation == "resident":
        rows = max(16, 1 << (shape.N - 1).bit_length())
        yield from (Tile(rows, rows, warps, 1) for warps in ((4, 8) if rows >= 64 else (4,)))
        return
    for rows in (16, 32, 64, 128, 256):
        for keys in (32, 64, 128):
            for warps in (4, 8):
                yield from (Tile(rows, keys, warps, stages) for stages in (1, 2, 3, 4))


def why_not_fit(tile: Tile, operation: str, shape: Shape, limits: Limits) -> str | None:
    """Why a tile can't fit, from what it holds at the least, or None: the compiler has the last word."""
    size = 4 if shape.kind in ("float32", "tf32") else 2
    held = tile.rows * (shape.width + (shape.N if operation == "resident" else tile.keys))  # sums and logits, float32
    registers = held // (tile.warps * limits.warp)
    if registers > _REGISTERS:
        return f"{registers} registers a thread for sums and logits alone"
    streams = 1 if operation in ("refine", "resident") else 2  # keys, and the values where they are others
    shared = (tile.stages - 1) * tile.keys * shape.width * size * streams
    if shared > limits.shared:
        return f"{shared:,} bytes of shared memory for {tile.stages} stages, of {limits.shared:,}"
    if shape.kind == "float32" and held * shape.width // (tile.warps * limits.warp) > _UNROLLED:
        return "too many float32 products to unroll"
    rows = max(16, 1 << (shape.N - 1).bit_length())
    if operation != "resident" and (tile.rows > rows or tile.keys > max(32, rows)):
        return f"larger than {shape.N} tokens"
    return None


def tune(problem: Problem, device: Device, limits: Limits, bench: Bench, dtype: Any) -> list[Entry]:
    """Choose the tiles of every operation that serves this problem.

    The operations come one after the other, each with the best tiles of those before it: Eq. 5, then Eq. 6, then
    Eq. 6 alone in place, rows of any norm, and last everything in one launch where N is at most 128.

    Raises:
        RuntimeError: the tiles that are there already are wrong or fail, so nothing could be compared with them.
    """
    best, entries = _first_tiles(problem, device, dtype), []
    for operation in _operations(problem):
        entry = choose(_step(operation, best), best[operation], problem.shape, limits, bench)
        entries.append(entry)
        best[operation] = entry.tile
    return entries


def trials_ahead(
    problem: Problem, device: Device, limits: Limits, dtype: Any
) -> Iterator[tuple[dict[str, Any], Tiles]]:
    """Options and tiles of what `tune` will try, with the built-in tiles in place of those found on its way."""
    first = _first_tiles(problem, device, dtype)
    for operation in _operations(problem):
        step = _step(operation, first)
        for tile in candidates(operation, problem.shape):
            if not why_not_fit(tile, operation, problem.shape, limits):
                yield step.options, {**step.others, operation: tile}


def _operations(problem: Problem) -> list[str]:
    return [operation for operation in _OPTIONS if operation != "resident" or problem.N <= 128]


def _first_tiles(problem: Problem, device: Device, dtype: Any) -> dict[str, Tile | None]:
    width = problem.shape.width
    return {each: None if each == "resident" else tile_for(device, each, width, dtype) for each in _OPTIONS}


def _step(operation: str, best: Tiles) -> Step:
    return Step(operation, _OPTIONS[operation], {name: tile for name, tile in best.items() if name != operation})


def choose(step: Step, first: Tile | None, shape: Shape, limits: Limits, bench: Bench) -> Entry:
    """The fastest right tile of an operation; `first` is the built-in one, and stays where nothing gains 2%."""
    start = _try(step, first, bench)
    if start.ms is None:
        raise RuntimeError(f"the built-in tile of {step.operation}, {first}, is {start.verdict}: {start.reason}")
    best, fastest = first, start.ms
    for tile in candidates(step.operation, shape):
        if tile == first:
            continue
        unfit = why_not_fit(tile, step.operation, shape, limits)
        if unfit:
            bench.report(Trial(step.operation, tile, "skipped", reason=unfit))
            continue
        trial = _try(step, tile, bench)
        if trial.ms is not None and trial.ms < fastest and trial.ms < _GAIN * start.ms:
            best, fastest = tile, trial.ms
    return Entry(step.operation, shape, best, round(fastest, 5), round(start.ms, 5))


def _try(step: Step, tile: Tile | None, bench: Bench) -> Trial:
    tiles = {**step.others, step.operation: tile}
    try:
        error = bench.error(step.options, tiles)
        if not error <= 1:  # NaN is wrong too
            trial = Trial(step.operation, tile, "wrong", reason=f"error {error:.2g} times what is allowed")
        else:
            trial = Trial(step.operation, tile, "timed", bench.time(step.options, tiles))
    except DoesNotFitError as error:
        trial = Trial(step.operation, tile, "skipped", reason=str(error))
    except Exception as error:  # a candidate may fail in the compiler or on the device, in many ways
        trial = Trial(step.operation, tile, "failed", reason=(str(error).splitlines() or [type(error).__name__])[0])
    bench.report(trial)
    return trial
