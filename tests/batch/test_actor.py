"""What a Ray actor does with its sources, without Ray: the rows of the local run."""

from dataclasses import replace
from pathlib import Path

import pytest

import gem_fast
from gem_fast.batch import BatchOptions
from gem_fast.batch import ray as on_ray
from gem_fast.batch.contents import Refused, Remote, Stretch
from gem_fast.batch.ray import Actor, to_row, to_source
from gem_fast.batch.records import PARTIAL
from gem_fast.batch.sources import Listing, Source
from gem_fast.batch.tables.opening import Row

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("settings", [{}, {"window": 32, "stride": 32}], ids=["whole", "windows"])
def test_an_actors_labels_are_those_of_the_local_run(small_model, folder, tmp_path, settings):
    options = {"size": 64, "threshold": 0.3, "overlays": False, "batch_size": 2, **settings}
    gem_fast.segment_files(small_model, folder, ["cat", "dog"], tmp_path, **options)
    query = small_model.query(["cat", "dog"], threshold=0.3)
    actor = Actor(lambda: small_model, query, BatchOptions(**options, format="parquet"))
    rows = {row["key"]: row for row in actor.rows(Listing([str(folder)]))}
    assert len(rows) == 3
    for key, row in rows.items():
        assert row["error"] is None
        assert row["labels"] == (tmp_path / f"{key}.labels.png").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        None,
        Stretch("t.tar/a.png", "t.tar", 512, 9),
        Row("t.parquet/a", "t.parquet", 0, 1, "image"),
        Row("s3://b/t.parquet/a", "s3://b/t.parquet", 0, 1, "image"),
        Remote("https://b/a.png"),
        Refused("a", "a link"),
    ],
    ids=str,
)
def test_a_source_is_the_same_in_any_folder_of_any_node(monkeypatch, tmp_path, content):
    monkeypatch.chdir(tmp_path)
    source = Source(Path("a.png"), "sub/a", 0, content, 7)
    row = to_row(source)
    monkeypatch.undo()
    named = {each: f"{tmp_path}/t.{ending}" for each, ending in (("file", "tar"), ("table", "parquet"))}
    here = {each: path for each, path in named.items() if getattr(content, each, None) == Path(path).name}
    assert to_source(row) == replace(
        source, path=tmp_path / "a.png", content=replace(content, **here) if content else None
    )


def test_a_long_list_is_in_files_of_so_many(monkeypatch, folder, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(on_ray, "_LISTED", 2)
    (tmp_path / PARTIAL).mkdir()
    on_ray.write_list(Listing([str(folder)]), tmp_path)
    files = sorted((tmp_path / "inputs").iterdir())
    assert [pq.read_table(path)["id"].to_pylist() for path in files] == [["000000000", "000000001"], ["000000002"]]
