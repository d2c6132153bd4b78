"""The parts of `make bench-batch` on the samples: nothing here is timed for its figure."""

from itertools import product

import pytest
from gem_fast.bench import batch

import gem_fast
from gem_fast.demo import SAMPLES

pytestmark = pytest.mark.usefixtures("threads")  # it sets torch's, as its process may


@pytest.mark.filterwarnings("ignore:this model's vocabulary")
def test_feeding_tells_what_each_stage_took(small_model, tmp_path):
    paths = [SAMPLES / "coffee.jpg"]
    for decodes, overlays in ((False, False), (True, True)):
        told = batch.feed(small_model, paths, tmp_path / f"{decodes}", decodes, overlays)
        assert sum(told["stages"].values()) * 1e3 == pytest.approx(told["ms"])
        assert {"read", "resize", "decode scores", "encode files", "write"} <= set(told["stages"])
        assert len(list((tmp_path / f"{decodes}").rglob("*.overlay.*"))) == overlays


def test_the_engine_alone_and_a_run_of_the_pipeline(small_model, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    (folder / "coffee.jpg").symlink_to(SAMPLES / "coffee.jpg")
    (folder / "broken.png").write_bytes(b"no picture")
    assert min(batch.alone(small_model, [folder / "coffee.jpg"], out / "alone", 1)) > 0
    told = batch.run(small_model, folder, out / "run", marks=(2,))
    assert told["stats"]["done"] == 1
    assert told["failed"] == [str(folder / "broken.png")]
    assert len(told["memory"]) == 1
    assert told["busy"] > 0


def test_small_images_as_files_and_in_archives(small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "TURNS", 2)
    told = batch.archived(small_model, tmp_path, tmp_path, 3)
    assert set(told) == {"as files", "into tar", "into Parquet", "from tar", "from Parquet"}
    for name, turn in product(told, range(2)):
        assert [record.status for record in gem_fast.records(tmp_path / f"{name} {turn}")] == ["ok"] * 3
