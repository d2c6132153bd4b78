"""What a Ray actor does with its sources, without Ray: the rows of the local run."""

import pytest

import gem_fast
from gem_fast.batch import BatchOptions
from gem_fast.batch.ray import Actor
from gem_fast.batch.sources import Listing

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
