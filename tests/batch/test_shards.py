"""Shards: what they hold, and that an interrupted run ends with the bytes of one that was not."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools.coco import COCO

from gem_fast import records, segment_files
from gem_fast.batch import shard_formats
from gem_fast.batch.options import BatchOptions
from gem_fast.batch.records import PARTIAL, Journal
from gem_fast.batch.shards import Shards

SETTINGS = {"size": 64, "batch_size": 2, "shard_size": 4, "workers": 1}
WORDS = ["cat", "dog", "car"]
SHARDS = {"tar": ".tar", "parquet": ".parquet", "coco": ".coco.json"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, picture):
    """Eleven images, the third of which is broken."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(11):
        picture(40 + 8 * (i % 2), 64, i).save(root / f"p.{i:02d}.png")
    (root / "p.02.png").write_bytes(b"broken")
    return root


@pytest.fixture(scope="module")
def made(small_model, photos, tmp_path_factory):
    """A function: the folder of a whole run in a format."""
    folders = {}

    def make(format):
        if format not in folders:
            folders[format] = tmp_path_factory.mktemp(format)
            outcome = run(small_model, photos, folders[format], format)
            assert (outcome.done, outcome.failed) == (10, 1)
        return folders[format]

    return make


@pytest.fixture
def small_disk(tmp_path):
    """A function: of a size in bytes, a folder on a file system of so many, and a function that gives it more."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")

    def make(size):
        mount(f"size={size}")
        return place / "out", lambda: mount("remount,size=64m")

    yield make
    subprocess.run(["umount", place], capture_output=True)


def run(model, images, out, format, **options):
    return segment_files(model, images, WORDS, out, format=format, **{**SETTINGS, **options})


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shard(folder, format, number=0):
    return folder / f"shard-{number:05d}{SHARDS[format]}"


@pytest.mark.parametrize("format", SHARDS)
class TestEveryFormat:
    def test_boundaries_follow_the_list(self, made, format):
        names = {path.name for path in made(format).iterdir()}
        numbered = {f"shard-0000{i}{ending}" for i in range(3) for ending in (SHARDS[format], ".stats.json")}
        assert names == {*numbered, "summary.jsonl", "errors.jsonl", "run.json", "legend.json"}
        found = list(records(made(format)))
        assert [Path(record.image).name for record in found] == [f"p.{i:02d}.png" for i in range(11)]
        assert [record.files["shard"] for record in found] == [
            shard(made(format), format, i // 4).name for i in range(11)
        ]

    def test_counts_by_status_and_reason(self, made, format):
        told = [json.loads((made(format) / f"shard-0000{i}.stats.json").read_text()) for i in range(3)]
        assert [each["status"] for each in told] == [
            {"ok": 3, "failed": 1},
            {"ok": 4, "failed": 0},
            {"ok": 3, "failed": 0},
        ]
        assert [each["reasons"] for each in told] == [{"not an image in a format that can be read": 1}, {}, {}]
        assert [each["bytes"] for each in told] == [shard(made(format), format, i).stat().st_size for i in range(3)]

    def test_a_rerun_finds_them(self, small_model, photos, made, format):
        before = content(made(format))
        stamps = [shard(made(format), format, i).stat().st_mtime_ns for i in range(3)]
        outcome = run(small_model, photos, made(format), format, resume=True)
        assert (outcome.done, outcome.failed, outcome.kept) == (0, 0, 11)
        assert content(made(format)) == before
        assert [shard(made(format), format, i).stat().st_mtime_ns for i in range(3)] == stamps

    def test_a_run_that_stops_keeps_the_lines_of_what_it_has_not_listed(self, made, tmp_path, format):
        out = shutil.copytree(made(format), tmp_path / "out")
        before = (out / "summary.jsonl").read_bytes()
        (out / PARTIAL).mkdir()
        Shards(out, BatchOptions(format=format, shard_size=4), {}, Journal(out, resume=True)).close()
        assert (out / "summary.jsonl").read_bytes() == before

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
    @pytest.mark.parametrize(
        ("sign", "after"), [(signal.SIGKILL, 1), (signal.SIGTERM, 5), (signal.SIGKILL, 5), (signal.SIGTERM, 10)]
    )
    def test_an_interrupted_run_ends_with_the_same_bytes(
        self, small_model, photos, made, tmp_path, format, sign, after
    ):
        out = tmp_path / "out"
        child = os.fork()
        if not child:
            seen = []

            def stop(record):
                seen.append(record)
                if len(seen) == after:
                    os.kill(os.getpid(), sign)

            signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                run(small_model, photos, out, format, on_record=stop, workers=2)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        outcome = run(small_model, photos, out, format, resume=True, workers=2)
        assert outcome.kept % 4 == 0
        assert content(out) == content(made(format))

    @pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="tells files by /proc")
    @pytest.mark.parametrize("where", ["spool", "shard", "summary"])
    def test_a_full_disk_in_the_middle_of_a_shard(
        self, small_model, photos, made, tmp_path, monkeypatch, format, where
    ):
        full = OSError(errno.ENOSPC, "No space left on device")

        def refuse(*_, **__):
            raise full

        out = tmp_path / "out"
        with monkeypatch.context() as patch:
            if where == "spool":
                patch.setattr("gem_fast.batch.stores.os.getpid", refuse)
            elif where == "shard":
                form = shard_formats.SHARD_FORMATS[format]
                patch.setattr(type(form), "write", property(lambda _: broken), raising=False)

                def broken(file, *arguments):
                    file.write(b"half of it")
                    refuse()
            else:
                whole = os.fsync

                def fsync(handle):
                    if os.readlink(f"/proc/self/fd/{handle}").endswith("summary.jsonl"):
                        refuse()
                    whole(handle)

                patch.setattr(os, "fsync", fsync)
            with pytest.raises(OSError, match=r"No space left on device.*out/") as error:
                run(small_model, photos, out, format)
            assert error.value.errno == errno.ENOSPC
        assert not [path for path in out.rglob("*") if path.name.startswith(".")]
        run(small_model, photos, out, format, resume=True)
        assert content(out) == content(made(format))

    @pytest.mark.parametrize("damage", ["shard cut", "shard gone", "statistics", "summary", "another name"])
    def test_a_shard_that_is_not_whole_is_made_again(self, small_model, photos, made, tmp_path, format, damage):
        before = content(made(format))
        for name, data in before.items():
            (tmp_path / name).write_bytes(data)
        second = shard(tmp_path, format, 1)
        if damage == "shard cut":
            second.write_bytes(second.read_bytes()[:-1])
        elif damage == "shard gone":
            second.unlink()
        elif damage == "statistics":
            (tmp_path / "shard-00001.stats.json").write_text("[]")
        elif damage == "summary":
            lines = (tmp_path / "summary.jsonl").read_bytes().splitlines(keepends=True)
            (tmp_path / "summary.jsonl").write_bytes(b"".join(lines[:6] + lines[8:]))
        else:
            summary = (tmp_path / "summary.jsonl").read_text()
            (tmp_path / "summary.jsonl").write_text(summary.replace("shard-00001", "../shard-1"))
        assert run(small_model, photos, tmp_path, format, resume=True).kept == 7
        assert content(tmp_path) == before

    def test_another_list_is_refused(self, small_model, photos, made, format):
        before = content(made(format))
        for images in ([photos / "p.00.png"], [photos / "p.00.png", photos], sorted(photos.iterdir())[1:]):
            with pytest.raises(ValueError, match="the inputs are others, or in another order"):
                run(small_model, images, made(format), format, resume=True)
        assert content(made(format)) == before

    def test_another_output_is_refused(self, small_model, photos, made, format):
        for asked, told in (
            ({"shard_size": 5}, "output shard_size was 4, now 5"),
            ({"heatmaps": True}, "output kinds was"),
            ({"format": "files"}, f"output format was {format}, now files"),
        ):
            if format == "coco" and "heatmaps" in asked:
                continue
            with pytest.raises(ValueError, match=told):
                run(small_model, photos, made(format), **{"format": format, "resume": True, **asked})

    def test_overwrite_leaves_nothing_of_the_earlier_run(self, small_model, photos, made, tmp_path, format):
        for name, data in content(made(format)).items():
            (tmp_path / name).write_bytes(data)
        (tmp_path / "shard-of-mine.tar").write_bytes(b"")
        outcome = run(small_model, photos / "p.01.png", tmp_path, "files", overwrite=True, overlays=False)
        assert outcome.done == 1
        names = {"p.01.labels.png", "summary.jsonl", "run.json", "legend.json", "shard-of-mine.tar"}
        assert {path.name for path in tmp_path.iterdir()} == names

    def test_own_shards_are_no_inputs(self, small_model, made, format):
        with pytest.raises(ValueError, match="no images found"):
            run(small_model, [made(format)], made(format).with_name("again"), format)
        if format != "coco":
            with pytest.raises(ValueError, match=r"no images found \(passed over .* that a run wrote"):
                run(small_model, [shard(made(format), format)], made(format).with_name("again"), format)


@pytest.mark.parametrize("format", ["files", *SHARDS])
def test_a_small_file_system_that_grows(small_model, photos, made, small_disk, format):
    truth = content(made(format))
    pages = sum(len(each) // 4096 + 1 for each in truth.values())
    out, grow = small_disk(pages // 2 * 4096)
    with pytest.raises(OSError, match=r"No space left on device.*out/"):
        run(small_model, photos, out, format)
    grow()
    run(small_model, photos, out, format, resume=True)
    assert content(out) == truth


class TestContents:
    @pytest.fixture
    def files(self, small_model, photos, tmp_path):
        run(small_model, photos, tmp_path / "files", "files", heatmaps=True)
        return tmp_path / "files"

    def test_tar_holds_the_files(self, made, files):
        with tarfile.open(shard(made("tar"), "tar")) as archive:
            found = {member.name: archive.extractfile(member).read() for member in archive}
            assert all((member.mtime, member.uname) == (0, "") for member in archive.getmembers())
        assert set(found) == {
            *(f"p%2E0{i}.{kind}" for i in (0, 1, 3) for kind in ("labels.png", "overlay.jpg", "json")),
            "p%2E02.json",
        }
        for kind in ("labels.png", "overlay.jpg"):
            assert found[f"p%2E00.{kind}"] == (files / f"p.00.{kind}").read_bytes()
        told = [json.loads(found[f"p%2E0{i}.json"]) for i in range(4)]
        assert [each["status"] for each in told] == ["ok", "ok", "failed", "ok"]
        assert told[0]["areas"] == next(records(files)).areas

    def test_parquet_has_a_row_an_image(self, small_model, photos, made, files, tmp_path):
        run(small_model, photos, tmp_path / "maps", "parquet", heatmaps=True)
        for folder, maps in ((made("parquet"), []), (tmp_path / "maps", ["heatmaps"])):
            table = pq.read_table(shard(folder, "parquet"))
            assert table.column_names == ["key", "path", "height", "width", "labels", *maps, "areas", "error"]
            rows = table.to_pylist(maps_as_pydicts="strict")
            for row, record in zip(rows, records(files), strict=False):
                assert (row["path"], row["error"], row["areas"]) == (record.image, record.error, record.areas)
                assert (row["height"], row["width"]) == (record.height, record.width)
                expected = (files / record.files["labels"]).read_bytes() if record.status == "ok" else None
                assert row["labels"] == expected
            assert [row["key"] for row in rows] == [f"p.0{i}" for i in range(4)]

    def test_coco_reads_it_back(self, made, files):
        seen = set()
        for number in range(3):
            coco = COCO(shard(made("coco"), "coco", number))
            assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == WORDS
            for image in coco.loadImgs(coco.getImgIds()):
                labels = np.asarray(Image.open(files / f"{Path(image['file_name']).stem}.labels.png"))
                assert labels.shape == (image["height"], image["width"])
                drawn = np.zeros_like(labels)
                for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
                    mask = coco.annToMask(annotation).astype(bool)
                    drawn[mask] = annotation["category_id"]
                    rows, columns = np.nonzero(mask)
                    left, top, width, height = annotation["bbox"]
                    assert (left, top) == (columns.min(), rows.min())
                    assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())
                    assert annotation["area"] == mask.sum()
                    assert 0 < annotation["score"] <= 1
                    assert annotation["id"] not in seen
                    seen.add(annotation["id"])
                assert np.array_equal(drawn, labels)
                assert image["id"] == int(image["file_name"][-6:-4]) + 1
        assert seen

    def test_parts_of_coco_share_no_number(self, small_model, photos, tmp_path):
        numbers = []
        for part in ("1/2", "2/2"):
            run(small_model, photos, tmp_path, "coco", part=part)
            for path in (tmp_path / f"part-{part[0]}-of-2").glob("*.coco.json"):
                numbers += [image["id"] for image in json.loads(path.read_text())["images"]]
        assert sorted(numbers) == [i + 1 for i in range(11) if i != 2]

    @pytest.mark.parametrize("key", ["a", "b/c", "a.b", "a%2Eb", "d.e/f.g"])
    def test_keys_of_webdataset(self, key):
        buffer = io.BytesIO()
        shard_formats._add(buffer, shard_formats.tar_key(key) + ".labels.png", b"x")
        name = tarfile.TarInfo.frombuf(buffer.getvalue()[:512], "utf-8", "strict").name
        folder, _, last = name.rpartition("/")
        stem, _, ending = last.partition(".")  # as webdataset takes it apart
        assert ending == "labels.png"
        assert len({shard_formats.tar_key(each) for each in ("a.b", "a%2Eb", "a_b")}) == 3
        assert (folder, stem.replace("%2E", ".").replace("%25", "%")) == (
            key.rpartition("/")[0],
            key.rpartition("/")[2],
        )

    @pytest.mark.parametrize(("format", "module"), [("parquet", "pyarrow"), ("coco", "pycocotools")])
    def test_what_is_missing_is_named(self, small_model, photos, tmp_path, monkeypatch, format, module):
        monkeypatch.setattr(shard_formats, "import_module", lambda _: (_ for _ in ()).throw(ImportError()))
        with pytest.raises(ValueError, match=rf'--format {format} needs {module}: pip install "gem_fast\[{format}\]"'):
            run(small_model, photos, tmp_path / "out", format)
        assert not (tmp_path / "out").exists()
