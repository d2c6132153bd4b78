"""The tables of tiles: which entry serves, and the file of measured ones."""

from pathlib import Path

import pytest
import torch
from gem_fast.kernels.attention.triton import tile_choice, tile_file
from gem_fast.kernels.attention.triton.tile_file import Entry, Shape, TileFileError, TileTable
from gem_fast.kernels.attention.triton.tile_search import candidates
from gem_fast.kernels.attention.triton.tiles import Device, Tile, tile_for

pytest.importorskip("triton")
H100 = Device("sm_90", 132, "NVIDIA H100 80GB HBM3")
SHAPE = Shape("bfloat16", 64, 785, 12)
MEASURED = Tile(64, 64, 4, 2)


def entry(operation="refine", shape=SHAPE, tile=MEASURED):
    return Entry(operation, shape, tile, 0.1, 0.2)


@pytest.fixture(autouse=True)
def _forgotten():
    tile_choice.forget()
    yield
    tile_choice.forget()


@pytest.fixture
def table_file(tmp_path, monkeypatch):
    """A function that writes a table for the H100 and points GEM_FAST_TILES to it."""

    def write(*entries, device=H100.name, text=None):
        import triton

        path = tmp_path / "tiles.json"
        path.write_text(text if text is not None else TileTable(device, triton.__version__, entries).to_json())
        monkeypatch.setenv(tile_file.VARIABLE, str(path))
        tile_choice.forget()
        return path

    return write


def chosen(operation="refine", heads=12, N=785, width=64, dtype=torch.bfloat16):
    return tile_choice.chosen_tile(H100, operation, heads, N, width, dtype)


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    table = TileTable("A GPU", "3.8.0", (entry(), entry("resident", Shape("tf32", 80, 50, 96), None)))
    path = tmp_path / "t.json"
    path.write_text(table.to_json())
    assert tile_file.read_table(path, "A GPU", "3.8.0") == table


@pytest.mark.parametrize(("before", "kind"), [("bf16", "bfloat16"), ("fp16", "float16"), ("fp32", "float32")])
def test_a_table_of_earlier_versions_is_read(tmp_path, before, kind):
    """They had the short names of types."""
    table = TileTable("A GPU", "3.8.0", (entry(shape=Shape(kind, 64, 785, 12)),))
    path = tmp_path / "t.json"
    path.write_text(table.to_json().replace(f'"{kind}"', f'"{before}"'))
    assert before in path.read_text()
    assert tile_file.read_table(path, "A GPU", "3.8.0") == table


def test_the_nearest_measured_shape_serves_and_only_within_a_factor_of_two(table_file):
    near = Tile(128, 32, 8, 2)
    table_file(entry(), entry(shape=Shape("bfloat16", 64, 785, 96), tile=near))
    built_in = tile_for(H100, "refine", 64, torch.bfloat16)
    assert built_in not in (MEASURED, near)
    assert chosen() == chosen(N=1025) == chosen(heads=24) == MEASURED
    assert chosen(heads=100) == chosen(heads=192) == near
    for other in ({"N": 1571}, {"heads": 193}, {"heads": 5}, {"width": 80}, {"dtype": torch.float16}):
        assert chosen(**other) == tile_for(H100, "refine", other.get("width", 64), other.get("dtype", torch.bfloat16))
    assert chosen("assign") == tile_for(H100, "assign", 64, torch.bfloat16)


def test_tf32_and_exact_float32_have_entries_of_their_own(table_file):
    table_file(entry(shape=Shape("tf32", 64, 785, 12)))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert chosen(dtype=torch.float32) == MEASURED
        torch.set_float32_matmul_precision("highest")
        assert chosen(dtype=torch.float32) == tile_for(H100, "refine", 64, torch.float32)
    finally:
        torch.set_float32_matmul_precision(before)


def test_whether_a_head_is_resident_is_measured_too(table_file):
    crowd = {"heads": 12, "N": 50, "width": 64, "dtype": torch.bfloat16}
    assert tile_choice.is_resident(H100, **crowd)  # the rule of the built-in table
    table_file(entry("resident", Shape("bfloat16", 64, 50, 12), None))
    assert not tile_choice.is_resident(H100, **crowd)
    table_file(entry("resident", Shape("bfloat16", 64, 100, 12), Tile(128, 128, 8, 1)))
    assert tile_choice.is_resident(H100, **{**crowd, "N": 100})
    assert not tile_choice.is_resident(H100, **{**crowd, "N": 130})  # near, but it does not fit the tile


def test_precedence_of_the_files(table_file, tmp_path, monkeypatch):
    import triton

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(tile_file.VARIABLE, raising=False)
    built_in = chosen()
    assert tile_choice.describe(H100.name) == "built in"
    own = tile_file.default_path(H100.name, triton.__version__)
    assert own.is_relative_to(tmp_path / "cache" / "gem_fast")
    own.parent.mkdir(parents=True)
    own.write_text(TileTable(H100.name, triton.__version__, (entry(),)).to_json())
    assert chosen() == built_in  # it is looked for once a process
    tile_choice.forget()
    assert chosen() == MEASURED != built_in
    assert str(own) in tile_choice.describe(H100.name)
    assert tile_choice.table_in_use("another GPU") is None
    named = table_file(entry(tile=Tile(32, 32, 4, 2)))
    assert chosen() == Tile(32, 32, 4, 2)
    assert str(named) in tile_choice.describe(H100.name)
    monkeypatch.setenv(tile_file.VARIABLE, tile_file.OFF)
    assert chosen() == built_in


def failing(error):
    def fail(*_):
        raise error

    return fail


def unreadable(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "exists", failing(PermissionError(13, "Permission denied")))


def homeless(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )


def damaged(monkeypatch, tmp_path):
    import triton

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tile_file.default_path(H100.name, triton.__version__)
    path.parent.mkdir()
    path.write_text("{")


def a_folder(monkeypatch, tmp_path):
    import triton

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tile_file.default_path(H100.name, triton.__version__).mkdir(parents=True)


@pytest.mark.parametrize("broken", [unreadable, homeless, damaged, a_folder])
def test_a_table_that_nobody_named_stops_nothing(monkeypatch, tmp_path, broken):
    monkeypatch.delenv(tile_file.VARIABLE, raising=False)
    broken(monkeypatch, tmp_path)
    assert chosen() == tile_for(H100, "refine", 64, torch.bfloat16)
    told = tile_choice.describe(H100.name)
    assert told == "built in" or "gem-fast tune" in told


def test_tables_are_looked_for_once_a_process(monkeypatch, tmp_path):
    monkeypatch.delenv(tile_file.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    looked = []
    monkeypatch.setattr(tile_choice, "path_in_use", lambda *names: looked.append(names))
    for operation in ("refine", "assign", "refine"):
        chosen(operation)
    assert len(looked) == 1


GOOD = TileTable(H100.name, "0", (entry(),)).to_json()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "damaged or foreign"),
        ("{}", "not a table of gem-fast tune"),
        ("[1]", "not a table"),
        (GOOD[:-9], "damaged"),
        (GOOD.replace("refine", "refined"), "'refined'"),
        (GOOD.replace('"bfloat16"', '"int8"'), "int8"),
        (GOOD.replace("[64, 64, 4, 2]", "[64, 48, 4, 2]"), r"\[64, 48, 4, 2\] are not rows"),
        (GOOD.replace("[64, 64, 4, 2]", "[64, 64, 4]"), "damaged"),
        (GOOD.replace("[64, 64, 4, 2]", "null"), "has no tile"),
        (GOOD.replace("785", "0"), "Shape"),
        (GOOD.replace('"triton": "0"', '"triton": "1"'), "with triton 1, and this is"),
        (GOOD.replace("H100", "H200"), "measured on NVIDIA H200"),
    ],
    ids=range(12),
)
def test_a_damaged_or_foreign_file_is_named_with_what_helps(table_file, text, told):
    path = table_file(text=text)
    with pytest.raises(TileFileError, match=told) as raised:
        chosen()
    for words in (str(path), "gem-fast tune", f"{tile_file.VARIABLE}=off"):
        assert words in str(raised.value)
    assert str(path) in tile_choice.describe(H100.name)


def test_a_named_file_that_is_not_there_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv(tile_file.VARIABLE, str(tmp_path / "none.json"))
    with pytest.raises(TileFileError, match=r"none\.json can't be read"):
        chosen()


@pytest.mark.parametrize("kind", tile_file.KINDS)
@pytest.mark.parametrize("operation", tile_file.OPERATIONS)
def test_the_file_takes_every_candidate(operation, kind, tmp_path):
    shape = Shape(kind, 64, 100, 12)
    table = TileTable("A GPU", "1", tuple(entry(operation, shape, tile) for tile in candidates(operation, shape)))
    path = tmp_path / "t.json"
    path.write_text(table.to_json())
    assert tile_file.read_table(path, "A GPU", "1") == table
    assert len(table.entries) >= 2
