"""Many files on a local Ray: the same rows as the local run, nothing computed twice, and an actor that is killed."""

import json
import os
import sys
import tarfile
import warnings
from functools import partial
from pathlib import Path

import pytest

import gem_fast
from gem_fast import segment_files
from gem_fast.batch.options import BatchOptions
from gem_fast.batch.ray import Actor, segment_on_ray, to_row, to_source
from gem_fast.batch.sources import Listing

WORDS = ["cat", "dog"]
SETTINGS = {"size": 96, "batch_size": 2, "shard_size": 4}


def rows(folder):
    """What a run says of each image, whatever the order."""
    import pyarrow.dataset as ds

    files = [str(path) for path in Path(folder).rglob("*.parquet") if "inputs" not in path.parts]
    columns = ["key", "path", "height", "width", "labels", "areas", "error"]
    return sorted(ds.dataset(files).to_table(columns=columns).to_pylist(), key=lambda row: row["key"])


def tars(folder):
    """What a run's archives hold: files by their names, records as they read, whatever the order."""
    found = {}
    for path in Path(folder).rglob("*.tar"):
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member).read()
                assert member.name not in found
                found[member.name] = json.loads(content) if member.name.endswith(".json") else content
    return found


READ = {"parquet": rows, "tar": tars}


def load(calls, deadly=False):
    """The model, which notes what it encodes; the second one loaded, an actor's, dies on its second batch."""
    model = gem_fast.load("gem-tiny")
    second = len(list(Path(calls).iterdir())) == 1
    (Path(calls) / f"{os.getpid()}").touch()
    whole, seen = type(model).score_on_host, []

    def score_on_host(*arguments, **settings):
        seen.append(arguments)
        with open(Path(calls) / f"{os.getpid()}", "a") as file:
            file.write(f"{len(arguments[0])}\n")
        if deadly and second and len(seen) == 2:
            os._exit(1)
        return whole(model, *arguments, **settings)

    object.__setattr__(model, "score_on_host", score_on_host)
    return model


def encoded(calls):
    return sum(int(line) for path in Path(calls).iterdir() for line in path.read_text().split())


@pytest.fixture
def photos(tmp_path, picture):
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(12):
        picture(96, 96 + 16 * (i % 2), i).save(root / f"{i:02d}.png")
    (root / "03.png").write_bytes(b"broken")
    return root


class TestActor:
    """What runs in an actor, without Ray."""

    def test_rows_are_those_of_the_local_run(self, photos, tmp_path):
        model = gem_fast.load("gem-tiny")
        segment_files(model, photos, WORDS, tmp_path / "local", format="parquet", **SETTINGS)
        actor = Actor(lambda: model, model.query(WORDS), BatchOptions(format="parquet", **SETTINGS))
        found = list(actor.rows(map(to_source, map(to_row, Listing(photos)))))
        assert len({row.pop("id") for row in found}) == 12
        for row in found:
            row["areas"] = [tuple(each) for each in row["areas"]]
            row.setdefault("labels", None)
        assert sorted(found, key=lambda row: row["key"]) == rows(tmp_path / "local")

    def test_files_are_those_of_the_local_tar(self, photos, tmp_path):
        model = gem_fast.load("gem-tiny")
        segment_files(model, photos, WORDS, tmp_path / "local", format="tar", **SETTINGS)
        actor = Actor(lambda: model, model.query(WORDS), BatchOptions(format="tar", **SETTINGS))
        found = {}
        for row in actor.rows(map(to_source, map(to_row, Listing(photos)))):
            key = row.pop("__key__")
            found |= {f"{key}.{ending}": content for ending, content in row.items() if content is not None}
        told = {name: json.loads(each) if name.endswith(".json") else each for name, each in found.items()}
        assert told == tars(tmp_path / "local")

    def test_other_formats_are_refused(self, photos, tmp_path):
        pytest.importorskip("ray")
        with pytest.raises(ValueError, match="writes --format parquet or tar, not coco"):
            segment_on_ray(gem_fast.load, photos, WORDS, tmp_path / "out", format="coco")

    def test_sources_travel_as_rows(self, photos, tmp_path):
        with tarfile.open(tmp_path / "t.tar", "w") as archive:
            archive.add(photos / "01.png", "a.png")
            archive.add(photos / "01.png", "../b.png")
        for source in Listing([photos / "00.png", tmp_path / "t.tar"]):
            assert to_source(to_row(source)) == to_source(to_row(to_source(to_row(source))))
            again = to_source(to_row(source))
            assert (again.path, again.name, again.content, again.position) == (
                *(source.path, source.name, source.content, source.position),
            )

    def test_resuming_needs_a_checkpoint(self, photos, tmp_path):
        pytest.importorskip("ray")
        with pytest.raises(ValueError, match="goes on from a --checkpoint"):
            segment_on_ray(gem_fast.load, photos, WORDS, tmp_path / "out", resume=True)

    def test_ray_is_missing(self, photos, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(ValueError, match=r'needs Ray: pip install "gem_fast\[ray\]"'):
            segment_on_ray(gem_fast.load, photos, WORDS, tmp_path / "out")


@pytest.mark.ray
class TestCluster:
    @pytest.fixture(scope="class", autouse=True)
    def _cluster(self):
        ray = pytest.importorskip("ray", reason='needs Ray: pip install "gem_fast[ray]"')
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()

    @pytest.mark.parametrize("format", READ)
    def test_one_actor_killed_and_started_again(self, photos, tmp_path, format):
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # tests are no package of the cluster's
        calls, again = tmp_path / "calls", tmp_path / "again"
        for folder in (calls, again):
            folder.mkdir()
        settings = {"checkpoint": str(tmp_path / "checkpoint"), "actors": 2, "format": format, **SETTINGS}
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*[Cc]heckpointing will be disabled.*")
            outcome = segment_on_ray(partial(load, str(calls), True), photos, WORDS, tmp_path / "out", **settings)
        assert (outcome.done, outcome.failed) == (11, 1)
        segment_files(gem_fast.load("gem-tiny"), photos, WORDS, tmp_path / "local", format=format, **SETTINGS)
        assert READ[format](tmp_path / "out") == READ[format](tmp_path / "local")
        outcome = segment_on_ray(partial(load, str(again)), photos, WORDS, tmp_path / "out", resume=True, **settings)
        assert (outcome.done, outcome.failed) == (11, 1)
        assert encoded(again) == 0
        assert READ[format](tmp_path / "out") == READ[format](tmp_path / "local")
