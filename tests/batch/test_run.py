"""Segmentation of many files: what is written, what fails alone, and what a second run keeps."""

import errno
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gem_fast
from gem_fast import GemModel, records, segment_files
from gem_fast.batch import Progress
from gem_fast.batch.files import Files
from gem_fast.batch.memory import Memory
from gem_fast.batch.options import BatchOptions
from gem_fast.batch.records import ERRORS, PARTIAL, SUMMARY, Journal, Record
from gem_fast.batch.sources import Listing

SMALL = "ViT-S-32-alt"
SETTINGS = {"size": 64, "batch_size": 2}


@pytest.fixture(autouse=True)
def _one_core(monkeypatch):
    """A worker a run, where a test asks for no more: each is a copy of this process, and takes as long as the rest."""
    monkeypatch.setattr("gem_fast.batch.run.cores", lambda: 1)


def lines(out):
    content = (out / SUMMARY).read_text(encoding="utf-8")
    assert content.endswith("\n") or not content
    return [json.loads(line) for line in content.split("\n")[:-1]]


def leftovers(out):
    return [path for path in out.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]


def run(model, images, prompts, out, **arguments):
    """Records of the images that this run did, in the order of the inputs."""
    done = []
    outcome = segment_files(model, images, prompts, out, on_record=done.append, **{**SETTINGS, **arguments})
    assert (outcome.done + outcome.failed, outcome.summary) == (len(done), Path(out) / SUMMARY)
    assert not leftovers(Path(out))
    order = [record.image for record in records(outcome.summary)]
    return sorted(done, key=lambda record: order.index(record.image))


def names(found):
    return [Path(record.image).name for record in found]


class TestSegmentFiles:
    def test_records_files_and_summary(self, small_model, folder, tmp_path):
        out, progress = tmp_path / "deep" / "out", Progress()
        found = run(small_model, [folder], ["cat", "dog"], out, progress=progress)
        assert names(found) == ["a.png", "b.jpg", "c.png"]
        assert (progress.done, progress.failed, progress.kept) == (3, 0, 0)
        written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        kinds = ("overlay.jpg", "labels.png")
        run_files = {SUMMARY, "run.json", "legend.json"}
        assert written == {*run_files, *(f"{stem}.{kind}" for stem in ("a", "b", "sub/c") for kind in kinds)}
        assert json.loads((out / "legend.json").read_text())["1"]["name"] == "cat"
        assert list(records(out)) == found
        for record, line in zip(found, lines(out), strict=True):
            assert line["image"] == record.image
            assert (line["status"], line["error"]) == ("ok", None)
            labels = np.asarray(Image.open(out / line["files"]["labels"]))
            assert labels.shape == (line["height"], line["width"])
            assert sum(line["areas"].values()) == pytest.approx(1)
            assert line["areas"].get("cat", 0) == pytest.approx((labels == 1).mean())
        assert [line["height"] for line in lines(out)] == [40, 48, 56]

    def test_the_summary_grows_with_each_image(self, small_model, folder, tmp_path):
        counts = []
        segment_files(
            small_model, folder, "cat", tmp_path, on_record=lambda _: counts.append(len(lines(tmp_path))), **SETTINGS
        )
        assert counts == [1, 2, 3]

    def test_equals_segment(self, small_model, folder, tmp_path):
        segment_files(small_model, folder, ["cat", "dog"], tmp_path / "out", threshold=0.5, **SETTINGS)
        own = small_model.segment(folder / "b.jpg", ["cat", "dog"], size=64, threshold=0.5)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "b.labels.png")), own.labels)

    def test_heat_maps_on_request(self, small_model, folder, tmp_path):
        segment_files(small_model, folder / "a.png", "cat", tmp_path, heatmaps=True, **SETTINGS)
        with np.load(tmp_path / "a.heatmaps.npz") as stored:
            assert stored["heatmaps"].shape == (1, 40, 64)

    def test_labels_without_overlays(self, small_model, folder, tmp_path, monkeypatch):
        def drawn(*_):
            raise RuntimeError("an overlay was drawn")

        monkeypatch.setattr("gem_fast.segmentation.blend_labels", drawn)
        out = tmp_path / "out"
        (record,) = run(small_model, folder / "a.png", "cat", out, overlays=False)
        assert record.files == {"labels": "a.labels.png"}
        assert {path.name for path in out.iterdir()} == {SUMMARY, "run.json", "legend.json", "a.labels.png"}
        (record,) = run(small_model, folder / "a.png", "cat", tmp_path / "with")
        assert "an overlay was drawn" in record.error

    @pytest.mark.parametrize(("format", "ending"), [("jpeg", "jpg"), ("png", "png"), ("webp", "webp")])
    def test_overlays_are_made_for_looking_at(self, small_model, folder, tmp_path, picture, format, ending):
        picture(60, 300).save(folder / "wide.png")
        settings = {"overlay_format": format, "overlay_size": 100}
        found = run(small_model, folder / "wide.png", "cat", tmp_path / "out", **settings)
        overlay = Image.open(tmp_path / "out" / f"wide.overlay.{ending}")
        assert (overlay.format, overlay.width) == (format.upper(), 160)  # the legend's least width
        assert np.asarray(overlay.convert("RGB"))[:20, :100].std() > 0
        assert (found[0].height, found[0].width) == (60, 300)
        assert Image.open(tmp_path / "out" / "wide.labels.png").size == (300, 60)
        whole = run(small_model, folder / "wide.png", "cat", tmp_path / "whole", **{**settings, "overlay_size": 0})
        assert Image.open(tmp_path / "whole" / whole[0].files["overlay"]).width == 300

    @pytest.mark.parametrize(("size", "expected"), [("model", (64, 96)), (20, (20, 32)), (None, (40, 64))], ids=str)
    def test_labels_of_another_size(self, small_model, folder, tmp_path, size, expected):
        (record,) = run(small_model, folder / "a.png", "cat", tmp_path, label_size=size, heatmaps=True)
        assert (record.height, record.width) == expected
        assert Image.open(tmp_path / "a.labels.png").size == expected[::-1]
        with np.load(tmp_path / "a.heatmaps.npz") as stored:
            assert stored["heatmaps"].shape == (1, *expected)

    def test_labels_of_a_thread_are_bounded(self, small_model, tmp_path):
        Image.new("RGB", (9000, 1)).save(tmp_path / "thread.png")
        (record,) = run(small_model, tmp_path / "thread.png", "cat", tmp_path / "out", label_size=100)
        assert "labels of 900000×100 are more than 89,478,485 pixels; take a smaller label size" in record.error

    def test_a_run_is_the_same_wherever_it_runs(self, small_model, folder, tmp_path, picture):
        """Nothing in the folder tells when, in which order or with how many hands it was made."""
        for i in range(9):
            picture(40, 50 + 10 * (i % 3), 10 + i).save(folder / f"d{i}.png")
        for workers in (1, 3):
            segment_files(small_model, folder, "cat", tmp_path / str(workers), workers=workers, **SETTINGS)
        one, three = (
            {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
            for out in (tmp_path / "1", tmp_path / "3")
        )
        assert one == three
        assert not any(
            str(tmp_path) in content.decode("latin1") for path, content in one.items() if path.name == "run.json"
        )

    def test_broken_files_do_not_stop_the_rest(self, small_model, folder, tmp_path):
        (folder / "aa.png").write_bytes(b"")
        (folder / "bb.jpg").write_bytes((folder / "b.jpg").read_bytes()[:300])
        found = run(small_model, folder, "cat", tmp_path / "out", size=448)
        assert [(Path(r.image).name, r.status) for r in found] == [
            ("a.png", "ok"),
            ("aa.png", "failed"),
            ("b.jpg", "ok"),
            ("bb.jpg", "failed"),
            ("c.png", "ok"),
        ]
        for record, reason in zip(found[1::2], ("aa.png: the file is empty", "bb.jpg: damaged"), strict=True):
            assert reason in record.error
            assert record.files == {}
        assert list(records(tmp_path / "out" / ERRORS)) == found[1::2]

    def test_only_broken_files(self, small_model, tmp_path):
        for name in ("a.png", "b.png", "c.png"):
            (tmp_path / name).write_bytes(b"")
        outcome = segment_files(small_model, tmp_path, "cat", tmp_path / "out", **SETTINGS)
        assert (outcome.done, outcome.failed, outcome.reasons) == (0, 3, {"the file is empty": 3})
        assert len(lines(tmp_path / "out")) == 3

    @pytest.mark.parametrize("stage", ["pixels", "input_size"])
    @pytest.mark.parametrize(
        "error", [RuntimeError("odd"), MemoryError("no room"), ZeroDivisionError("by 0")], ids=repr
    )
    def test_what_fails_after_reading_fails_alone(self, small_model, folder, tmp_path, monkeypatch, error, stage):
        whole = getattr(GemModel, stage)

        def fail(self, image, *arguments):
            if 48 in (image[0] if isinstance(image, tuple) else np.asarray(image).shape[0],):
                raise error
            return whole(self, image, *arguments)

        monkeypatch.setattr(GemModel, stage, fail)
        found = run(small_model, folder, "cat", tmp_path)
        assert [r.status for r in found] == ["ok", "failed", "ok"]
        assert found[1].error == f"{folder / 'b.jpg'}: {type(error).__name__}: {error}"

    @pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), MemoryError("no room")], ids=repr)
    def test_an_image_that_breaks_its_batch_fails_alone(self, small_model, folder, tmp_path, monkeypatch, error):
        whole = GemModel.patch_features

        def patch_features(self, pixels, shape):
            if any(np.array_equal(each, guilty) for each in pixels):
                raise error
            return whole(self, pixels, shape)

        guilty = small_model.pixels(Image.open(folder / "b.jpg"), (64, 64))
        monkeypatch.setattr(GemModel, "patch_features", patch_features)
        found = run(small_model, folder, "cat", tmp_path, resize="squash", batch_size=3)
        assert [r.status for r in found] == ["ok", "failed", "ok"]
        assert str(error) in found[1].error
        assert "b.jpg" in found[1].error
        assert [line["status"] for line in lines(tmp_path)] == ["ok", "failed", "ok"]

    def test_an_output_that_cannot_be_written_fails_alone(self, small_model, folder, tmp_path):
        (tmp_path / "out" / "b.labels.png").mkdir(parents=True)
        found = run(small_model, folder, "cat", tmp_path / "out")
        assert [r.status for r in found] == ["ok", "failed", "ok"]
        assert "b.labels.png" in found[1].error

    def test_a_full_disk_ends_the_run(self, small_model, folder, tmp_path, monkeypatch):
        whole = os.replace

        def replace(source, target):
            if "b." in str(target):
                raise OSError(errno.ENOSPC, "No space left on device")
            whole(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            with pytest.raises(OSError, match=r"No space left on device.*out/b\."):
                run(small_model, folder, "cat", tmp_path / "out")
        assert not leftovers(tmp_path / "out")
        assert "b.jpg" in names(run(small_model, folder, "cat", tmp_path / "out", resume=True))
        assert [line["status"] for line in lines(tmp_path / "out")] == ["ok"] * 3

    def test_interruption_leaves_a_whole_summary(self, small_model, folder, tmp_path):
        out = tmp_path / "out"

        def stop(record):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            segment_files(small_model, folder, "cat", out, on_record=stop, **SETTINGS)
        (first,) = lines(out)
        assert not leftovers(out)
        found = run(small_model, folder, "cat", out, resume=True)
        assert first["image"] not in [record.image for record in found]
        assert [Path(line["image"]).name for line in lines(out)] == ["a.png", "b.jpg", "c.png"]

    @pytest.mark.parametrize(("written", "kept"), [(None, 1), (10, 0), (0, 0)], ids=["after", "in", "before"])
    def test_an_interrupt_at_the_moment_of_a_line(self, tmp_path, monkeypatch, written, kept):
        """One that is written whole is kept, and no other."""
        append = Journal._append

        def interrupted(journal, line):
            append(journal, line[:written])
            raise KeyboardInterrupt

        (tmp_path / PARTIAL).mkdir()
        journal = Journal(tmp_path, resume=False)
        monkeypatch.setattr(Journal, "_append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.write(1, Record("b.png", "ok"))
        journal.close()
        assert [line["image"] for line in lines(tmp_path)] == ["b.png"] * kept

    def test_it_stops_at_too_many_errors(self, small_model, tmp_path):
        for i in range(30):
            (tmp_path / f"{i}.png").write_bytes(b"")
        outcome = segment_files(small_model, tmp_path, "cat", tmp_path / "out", max_errors=3, **SETTINGS)
        assert outcome.failed == 4
        assert outcome.stopped == "stopped, since more than 3 images failed"

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ({"prompts": []}, "at least one class"),
            ({"batch_size": 0}, "batch_size must be 1 or more, a whole number, got 0"),
            ({"workers": 0}, "workers must be 1 or more, a whole number, got 0"),
            ({"retries": -1}, "retries must be 0 or more, a whole number, got -1"),
            ({"timeout": 0}, "timeout must be a positive number"),
            ({"threshold": 3}, "threshold"),
            ({"resize": "crop"}, "resize must be"),
            ({"size": -1}, "size must be"),
            ({"resume": True, "overwrite": True}, "choose one"),
            ({"overlay_format": "gif"}, "overlays are written as jpeg, png, webp, got 'gif'"),
            ({"overlay_size": -1}, "overlay_size must be 0 or more"),
            ({"label_size": "photo"}, "label_size must be model or a positive number"),
            ({"label_size": -64}, "label_size must be model or a positive number"),
            ({"format": "coco", "heatmaps": True}, "format coco has no place for heat maps"),
            ({"label_size": 64.0}, "label_size must be model or a positive number"),
            ({"overwrite": "no"}, "overwrite must be True or False, got 'no'"),
            ({"resume": 1}, "resume must be True or False, got 1"),
            ({"heatmaps": "no"}, "heatmaps must be True or False"),
            ({"overlays": None}, "overlays must be True or False"),
            ({"workers": "2"}, "workers must be 1 or more, a whole number, got '2'"),
            ({"batch_size": 2.5}, "batch_size must be 1 or more, a whole number, got 2.5"),
            ({"batch_size": 10**13}, "batch_size must be at most 65,536"),
            ({"size": 32.5}, "size must be 1 or more, a whole number, got 32.5"),
            ({"timeout": True}, "timeout must be a positive number"),
            ({"max_errors": True}, "max_errors must be 0 or more, a whole number, got True"),
            ({"label_size": True}, "label_size must be model or a positive number"),
            ({"part": 3}, "part must be one such as 3/16"),
            ({"timeout": "5"}, "timeout must be a positive number"),
            ({"timeout": float("nan")}, "timeout must be a positive number"),
            ({"treshold": 1}, "unknown options treshold; known are .*threshold"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_wrong_arguments(self, small_model, folder, tmp_path, arguments, reason):
        out = tmp_path / "out"
        with pytest.raises(ValueError, match=reason):
            segment_files(small_model, folder, **{"prompts": "cat", "out": out, **SETTINGS, **arguments})
        assert not out.exists()

    @pytest.mark.parametrize("number", [np.int32, np.array, torch.tensor], ids=["numpy", "array", "tensor"])
    def test_numbers_of_any_library(self, number):
        names = ["batch_size", "workers", "retries", "max_errors", "label_size", "size", "timeout"]
        plain, other = (BatchOptions(**{name: make(2) for name in names}) for make in (int, number))
        assert plain == other
        assert {type(getattr(other, name)) for name in names} == {int}

    def test_a_path_in_bytes(self, small_model, folder, tmp_path):
        assert names(run(small_model, [os.fsencode(folder / "a.png")], "cat", tmp_path / "out")) == ["a.png"]

    def test_a_batch_may_be_larger_than_the_images_are_many(self, small_model, folder, tmp_path, monkeypatch):
        places, whole = [], Memory.__init__
        monkeypatch.setattr(Memory, "__init__", lambda self, *given: (places.append(given[0]), whole(self, *given))[1])
        assert len(run(small_model, folder, "cat", tmp_path / "out", batch_size=10_000)) == 3
        assert places == [3]

    def test_a_batch_that_takes_more_memory_than_there_is(self, small_model, folder, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        monkeypatch.setattr(Memory, "__init__", refuse)
        with pytest.raises(
            ValueError, match=r"batch_size 2 takes .* bytes, more than there are \(Cannot allocate memory"
        ):
            run(small_model, folder, "cat", tmp_path / "out")

    def test_no_image_names_the_endings(self, small_model, tmp_path):
        with pytest.raises(ValueError, match=r"no images found.*\.bmp, .*\.webp"):
            segment_files(small_model, tmp_path, "cat", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_the_output_folder_is_a_file(self, small_model, folder):
        with pytest.raises(NotADirectoryError, match=r"a\.png is a file"):
            segment_files(small_model, folder, "cat", folder / "a.png")

    def test_the_output_folder_cannot_be_written(self, small_model, folder, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied", str(tmp_path / "out"))

        monkeypatch.setattr(Path, "mkdir", refuse)  # root writes everywhere, so chmod would not do
        with pytest.raises(PermissionError, match="out"):
            segment_files(small_model, folder, "cat", tmp_path / "out")

    def test_output_into_the_folder_of_the_images(self, small_model, folder):
        for overwrite in (False, True):
            found = run(small_model, folder, "cat", folder, overwrite=overwrite)
            assert names(found) == ["a.png", "b.jpg", "c.png"]

    @pytest.mark.parametrize("name", ["caf\udce9.png", "line\u2028separator.png", "猫.png", "a'b\"c.png"], ids=ascii)
    def test_any_file_name(self, small_model, picture, tmp_path, name):
        path = tmp_path / "in" / name
        path.parent.mkdir()
        with open(os.fsencode(path), "wb") as file:
            picture().save(file, "PNG")
        for expected in (1, 0):
            found = run(small_model, path.parent, "cat", tmp_path / "out", resume=True)
            assert [r.status for r in found] == ["ok"] * expected
        assert [line["image"] for line in lines(tmp_path / "out")] == [str(path)]


class TestResume:
    @pytest.fixture
    def out(self, small_model, folder, tmp_path):
        segment_files(small_model, folder, "cat", tmp_path / "out", **SETTINGS)
        return tmp_path / "out"

    def again(self, small_model, folder, out, **arguments):
        found = run(small_model, folder, "cat", out, resume=True, **arguments)
        assert [Path(line["image"]).name for line in lines(out)] == ["a.png", "b.jpg", "c.png"]
        return names(found)

    def test_finished_images_are_kept(self, small_model, folder, out):
        stamp = (out / "a.overlay.jpg").stat().st_mtime_ns
        assert self.again(small_model, folder, out) == []
        assert (out / "a.overlay.jpg").stat().st_mtime_ns == stamp

    def test_a_lost_output_is_made_again(self, small_model, folder, out):
        (out / "b.labels.png").unlink()
        assert self.again(small_model, folder, out) == ["b.jpg"]
        assert (out / "b.labels.png").exists()

    @pytest.mark.parametrize("kept", [1, 40, -1], ids=["start", "middle", "newline"])
    def test_a_line_cut_off_counts_as_not_written(self, small_model, folder, out, kept):
        first, second, third, _ = (out / SUMMARY).read_bytes().split(b"\n")
        (out / SUMMARY).write_bytes(first + b"\n" + second + b"\n" + (third + b"\n")[:kept])
        assert self.again(small_model, folder, out) == ([] if kept == -1 else ["c.png"])

    def test_a_letter_cut_in_half(self, small_model, folder, out):
        with open(out / SUMMARY, "ab") as file:
            file.write('{"image": "猫'.encode()[:-1])
        assert self.again(small_model, folder, out) == []

    @pytest.mark.parametrize(
        "line",
        [
            *("7", "[]", "null", "{}", '{"status": "ok"}', '{"image": "a", "status": "ok"}', "text", ""),
            *('{"image": "a", "status": "ok", "key": "x"}', '{"image": "a", "status": "ok", "key": 7}'),
        ],
        ids=repr,
    )
    def test_strange_lines_are_passed_over(self, small_model, folder, out, line):
        content = (out / SUMMARY).read_text()
        (out / SUMMARY).write_text(line + "\n" + content)
        assert self.again(small_model, folder, out) == []

    def test_failures_get_another_try(self, small_model, folder, out, picture):
        (folder / "b.jpg").write_bytes(b"")
        segment_files(small_model, folder, "cat", out, overwrite=True, **SETTINGS)
        assert [line["status"] for line in lines(out)] == ["ok", "failed", "ok"]
        picture().save(folder / "b.jpg")
        assert self.again(small_model, folder, out) == ["b.jpg"]
        assert {line["status"] for line in lines(out)} == {"ok"}

    def test_heat_maps_asked_for_later_are_made(self, small_model, folder, out):
        assert len(self.again(small_model, folder, out, heatmaps=True)) == 3
        assert self.again(small_model, folder, out, heatmaps=True) == []
        assert self.again(small_model, folder, out) == []

    def test_overlays_asked_for_later_are_made(self, small_model, folder, out):
        assert self.again(small_model, folder, out, overlays=False) == []
        segment_files(small_model, folder, "cat", out.with_name("other"), overlays=False, **SETTINGS)
        assert self.again(small_model, folder, out.with_name("other"), overlays=False) == []
        assert len(self.again(small_model, folder, out.with_name("other"))) == 3
        assert (out.with_name("other") / "a.overlay.jpg").exists()
        assert len(self.again(small_model, folder, out, overlay_format="png")) == 3
        assert self.again(small_model, folder, out, overlay_format="png") == []

    @pytest.mark.parametrize("format", ["png", "webp"])
    def test_an_image_in_other_kinds_leaves_no_file_of_the_earlier_ones(self, small_model, folder, out, format):
        (out / "mine.overlay.jpg").write_bytes(b"of somebody else")
        self.again(small_model, folder, out, overlay_format=format)
        assert {path.name for path in out.rglob("*.overlay.*")} == {
            *("mine.overlay.jpg", f"a.overlay.{format}", f"b.overlay.{format}", f"c.overlay.{format}")
        }
        run(small_model, folder, "cat", out, overwrite=True, overlays=False)
        assert [path.name for path in out.rglob("*.overlay.*")] == ["mine.overlay.jpg"]

    def test_what_is_another_images_by_now_stays(self, small_model, folder, out, tmp_path, picture):
        """An image that is done again may lose its name to one that is listed before it."""
        (tmp_path / "before").mkdir()
        picture().save(tmp_path / "before" / "a.png")
        inputs = [tmp_path / "before", folder]
        found = run(small_model, inputs, "cat", out, resume=True, overlay_format="png")
        assert [each.files["labels"] for each in found[:2]] == ["a.labels.png", "a-2.labels.png"]
        assert all((out / name).exists() for each in found for name in each.files.values())

    def test_overlays_of_another_size_are_refused(self, small_model, folder, out):
        assert self.again(small_model, folder, out, overlays=False) == []
        with pytest.raises(ValueError, match="output overlay_size was 1600, now 20"):
            run(small_model, folder, "cat", out, resume=True, overlay_size=20)
        none = out.with_name("none")
        segment_files(small_model, folder, "cat", none, overlays=False, **SETTINGS)
        assert len(self.again(small_model, folder, none, overlay_size=20)) == 3

    @pytest.mark.parametrize("damage", [b"", b"\xff\xd8\xff", None], ids=["empty", "head", "cut"])
    def test_an_output_that_is_not_whole_is_made_again(self, small_model, folder, out, damage):
        path = out / "b.overlay.jpg"
        path.write_bytes(path.read_bytes()[:-5] if damage is None else damage)
        assert self.again(small_model, folder, out) == ["b.jpg"]
        Image.open(path).load()

    def test_without_it_or_overwrite_it_is_refused(self, small_model, folder, out):
        before = (out / SUMMARY).read_bytes()
        with pytest.raises(ValueError, match=r"out holds an earlier run: take --resume .*or --overwrite"):
            run(small_model, folder, "cat", out)
        assert (out / SUMMARY).read_bytes() == before

    def test_overwrite_leaves_nothing_of_the_earlier_run(self, small_model, folder, out):
        assert names(run(small_model, folder / "b.jpg", "dog", out, overwrite=True)) == ["b.jpg"]
        assert len(lines(out)) == 1
        assert {path.name for path in out.rglob("*.png")} == {"b.labels.png"}

    @pytest.mark.parametrize(
        ("asked", "told"),
        [
            ({"prompts": "dog"}, "prompts was cat, now dog"),
            ({"prompts": ["cat", "dog"]}, "prompts was cat, now cat, dog"),
            ({"prompts": {"cat": ["cat", "kitten"]}}, r"prompts was cat, now cat \(cat, kitten\)"),
            ({"background": "sky"}, "background was none, now sky"),
            ({"templates": "the {}"}, "settings templates was a photo of a {}., now the {}"),
            ({"threshold": 0.7}, "settings threshold was 0.5, now 0.7"),
            ({"logit_scale": 7}, "settings logit_scale was 1000.0, now 7"),
            ({"size": 96}, "settings size was 64, now 96"),
            ({"resize": "squash"}, "settings resize was shorter, now squash"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_another_question_is_refused_with_the_difference(self, small_model, folder, out, asked, told):
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match=told):
            run(small_model, folder, **{"prompts": "cat", "out": out, "resume": True, **asked})
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    def test_other_weights_are_refused(self, folder, out):
        torch.manual_seed(1)
        other = gem_fast.load(SMALL, "random")
        with pytest.raises(ValueError, match="weights was"):
            run(other, folder, "cat", out, resume=True)
        with pytest.raises(ValueError, match="method iterations was 1, now 2"):
            run(gem_fast.load(SMALL, "random", iterations=2), folder, "cat", out, resume=True)

    def test_results_of_an_unknown_question_are_refused(self, small_model, folder, out):
        (out / "run.json").unlink()
        with pytest.raises(ValueError, match=r"holds results and no run\.json"):
            run(small_model, folder, "cat", out, resume=True)

    @pytest.mark.parametrize("content", [b"", b"[1", b"[" * 100_000, b"7", b"\xff\xfe"], ids=lambda c: repr(c[:5]))
    def test_a_damaged_run_is_refused(self, small_model, folder, out, content):
        (out / "run.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"run\.json is damaged"):
            run(small_model, folder, "cat", out, resume=True)

    def test_more_inputs_are_no_difference(self, small_model, folder, out, picture):
        picture().save(folder / "aa.png")
        assert names(run(small_model, folder, "cat", out, resume=True)) == ["aa.png"]
        assert [Path(line["image"]).name for line in lines(out)] == ["a.png", "aa.png", "b.jpg", "c.png"]

    def test_the_same_image_by_another_spelling(self, small_model, folder, out, tmp_path, monkeypatch):
        monkeypatch.chdir(folder.parent)
        (tmp_path / "link").symlink_to(folder)
        for spelled in (folder.name, f"./{folder.name}/../{folder.name}", tmp_path / "link"):
            assert run(small_model, spelled, "cat", out, resume=True) == []
            assert len(lines(out)) == 3

    def test_a_relative_path_from_another_folder_is_another_image(self, small_model, tmp_path, monkeypatch, picture):
        for i, name in enumerate(("one", "two")):
            (tmp_path / name / "photos").mkdir(parents=True)
            picture(40, 64, i).save(tmp_path / name / "photos" / "a.png")
        labels = []
        for name in ("one", "two"):
            monkeypatch.chdir(tmp_path / name)
            (record,) = run(small_model, "photos", "cat", tmp_path / "out", resume=True)
            labels.append(record.files["labels"])
        assert labels == ["a.labels.png", "a-2.labels.png"]
        assert [line["image"] for line in lines(tmp_path / "out")] == ["photos/a.png"] * 2

    def test_the_same_image_by_a_relative_path_from_another_folder(self, small_model, folder, tmp_path, monkeypatch):
        monkeypatch.chdir(folder.parent)
        assert len(run(small_model, folder.name, "cat", tmp_path / "out")) == 3
        for place, spelled in ((folder, "."), (folder / "sub", "..")):
            monkeypatch.chdir(place)
            assert run(small_model, spelled, "cat", tmp_path / "out", resume=True) == []
            assert len(lines(tmp_path / "out")) == 3

    def test_a_summary_of_an_earlier_version_has_no_keys(self, small_model, folder, out):
        told = [{name: value for name, value in line.items() if name != "key"} for line in lines(out)]
        (out / SUMMARY).write_text("".join(json.dumps(line) + "\n" for line in told))
        assert self.again(small_model, folder, out) == []

    def test_what_is_kept_has_its_line_wherever_the_run_stops(self, folder, out):
        """One that listed no image, some or all: no line is lost, and none is there twice."""
        before = (out / SUMMARY).read_text().splitlines()
        for listed in range(4):
            (out / PARTIAL).mkdir(exist_ok=True)
            journal = Journal(out, resume=True)
            output = Files(out, BatchOptions().kinds, journal)
            sources = islice(Listing(folder, output.finished), listed)
            assert list(output.unfinished(sources, Progress())) == []
            output.close()
            assert (out / SUMMARY).read_text().splitlines() == before

    def test_a_line_that_is_placed_while_the_run_ends_is_there_once(self, folder, out, monkeypatch):
        """Images are listed by another thread: this one places each just before and just after the summary is put."""
        before = (out / SUMMARY).read_text().splitlines()
        (out / PARTIAL).mkdir()
        journal = Journal(out, resume=True)
        output = Files(out, BatchOptions().kinds, journal)
        listed = output.unfinished(Listing(folder, output.finished), Progress())
        place, close = Journal.place, Journal.close

        def placed(self, position, offset):
            if position == 1:
                close(self, output._kept.values())
            place(self, position, offset)

        monkeypatch.setattr(Journal, "place", placed)
        assert list(listed) == []
        assert (out / SUMMARY).read_text().splitlines() == before

    def test_names_given_to_other_inputs_stay_theirs(self, small_model, folder, out, tmp_path, picture):
        (tmp_path / "more").mkdir()
        picture().save(tmp_path / "more" / "a.png")
        first = (out / "a.labels.png").read_bytes()
        (record,) = run(small_model, tmp_path / "more", "cat", out, resume=True)
        assert record.files["labels"] == "a-2.labels.png"
        assert (out / "a.labels.png").read_bytes() == first
        assert len(lines(out)) == 4

    def test_into_a_new_folder(self, small_model, folder, tmp_path):
        assert len(self.again(small_model, folder, tmp_path / "new")) == 3


class TestTwoRuns:
    def test_the_second_into_one_folder_is_refused(self, small_model, folder, tmp_path):
        refused = []

        def second(_):
            with pytest.raises(ValueError, match="another run works in") as error:
                segment_files(small_model, folder, "cat", tmp_path / "out", resume=True, **SETTINGS)
            refused.append(error)

        outcome = segment_files(small_model, folder, "cat", tmp_path / "out", on_record=second, **SETTINGS)
        assert (outcome.done, len(refused)) == (3, 3)

    def test_a_lock_dies_with_its_process(self, small_model, folder, tmp_path):
        code = (
            "import os, pathlib\nfrom gem_fast.batch.folder import hold\n"
            f"with hold(pathlib.Path({str(tmp_path / 'out')!r})): os.kill(os.getpid(), 9)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
        assert (tmp_path / "out" / ".lock").exists()
        assert len(run(small_model, folder, "cat", tmp_path / "out")) == 3
