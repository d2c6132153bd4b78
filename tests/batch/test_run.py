"""Segmentation of many files: what is written, what fails alone, and what a second run keeps."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gem_fast import GemModel, segment_files
from gem_fast.batch.records import SUMMARY

SETTINGS = {"size": 64, "batch_size": 2}


def lines(out):
    content = (out / SUMMARY).read_text(encoding="utf-8")
    assert content.endswith("\n") or not content
    return [json.loads(line) for line in content.split("\n")[:-1]]


def leftovers(out):
    return [path for path in out.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]


class TestSegmentFiles:
    def test_records_files_and_summary(self, small_model, folder, tmp_path):
        out = tmp_path / "deep" / "out"
        seen, totals = [], []
        records = segment_files(
            small_model, [folder], ["cat", "dog"], out, on_record=seen.append, on_start=totals.append, **SETTINGS
        )
        assert [Path(r.image).name for r in records] == ["a.png", "b.jpg", "c.png"]
        assert seen == records
        assert totals == [3]
        written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        kinds = ("overlay.png", "labels.png", "legend.json")
        assert written == {SUMMARY, *(f"{stem}.{kind}" for stem in ("a", "b", "sub/c") for kind in kinds)}
        for record, line in zip(records, lines(out), strict=True):
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
        monkeypatch.setattr("gem_fast.segmentation.blend_labels", lambda *_: pytest.fail("an overlay was drawn"))
        out = tmp_path / "out"
        (record,) = segment_files(small_model, folder / "a.png", "cat", out, overlays=False, **SETTINGS)
        assert record.files == {"labels": "a.labels.png", "legend": "a.legend.json"}
        assert {path.name for path in out.iterdir()} == {SUMMARY, *record.files.values()}

    def test_broken_files_do_not_stop_the_rest(self, small_model, folder, tmp_path):
        (folder / "aa.png").write_bytes(b"")
        (folder / "bb.jpg").write_bytes((folder / "b.jpg").read_bytes()[:300])
        Image.new("RGB", (5000, 1)).save(folder / "thread.png")
        records = segment_files(small_model, folder, "cat", tmp_path / "out", size=448, batch_size=2)
        assert [(Path(r.image).name, r.status) for r in records] == [
            ("a.png", "ok"),
            ("aa.png", "failed"),
            ("b.jpg", "ok"),
            ("bb.jpg", "failed"),
            ("c.png", "ok"),
            ("thread.png", "failed"),
        ]
        assert [line["image"] for line in lines(tmp_path / "out")] == [r.image for r in records]
        for record, reason in zip(
            records[1::2], ("aa.png: the file is empty", "bb.jpg: damaged", "squash"), strict=True
        ):
            assert reason in record.error
            assert Path(record.image).name in record.error
            assert record.files == {}
        assert not leftovers(tmp_path / "out")

    def test_only_broken_files(self, small_model, tmp_path):
        for name in ("a.png", "b.png", "c.png"):
            (tmp_path / name).write_bytes(b"")
        records = segment_files(small_model, tmp_path, "cat", tmp_path / "out", **SETTINGS)
        assert [r.status for r in records] == ["failed"] * 3
        assert len(lines(tmp_path / "out")) == 3

    @pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), MemoryError("no room")], ids=repr)
    def test_an_image_that_breaks_its_batch_fails_alone(self, small_model, folder, tmp_path, monkeypatch, error):
        whole = GemModel.segment

        def segment(self, images, *arguments, **settings):
            if any(image.height == 48 for image in (images if isinstance(images, list) else [images])):
                raise error
            return whole(self, images, *arguments, **settings)

        monkeypatch.setattr(GemModel, "segment", segment)
        records = segment_files(small_model, folder, "cat", tmp_path, size=64, batch_size=3)
        assert [r.status for r in records] == ["ok", "failed", "ok"]
        assert str(error) in records[1].error
        assert "b.jpg" in records[1].error
        assert [line["status"] for line in lines(tmp_path)] == ["ok", "failed", "ok"]

    def test_an_output_that_cannot_be_written_fails_alone(self, small_model, folder, tmp_path):
        (tmp_path / "out" / "b.labels.png").mkdir(parents=True)
        records = segment_files(small_model, folder, "cat", tmp_path / "out", **SETTINGS)
        assert [r.status for r in records] == ["ok", "failed", "ok"]
        assert "b.labels.png" in records[1].error
        assert not leftovers(tmp_path / "out")

    def test_interruption_leaves_a_whole_summary(self, small_model, folder, tmp_path, monkeypatch):
        out, calls, whole = tmp_path / "out", [], GemModel.segment

        def segment(self, *arguments, **settings):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return whole(self, *arguments, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(GemModel, "segment", segment)
            with pytest.raises(KeyboardInterrupt):
                segment_files(small_model, folder, "cat", out, **SETTINGS)
        assert [Path(line["image"]).name for line in lines(out)] == ["a.png", "b.jpg"]
        assert not leftovers(out)
        records = segment_files(small_model, folder, "cat", out, resume=True, **SETTINGS)
        assert [Path(r.image).name for r in records] == ["c.png"]
        assert [Path(line["image"]).name for line in lines(out)] == ["a.png", "b.jpg", "c.png"]

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ({"prompts": []}, "at least one class"),
            ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
            ({"threshold": 3}, "threshold"),
            ({"resize": "crop"}, "resize must be"),
            ({"size": -1}, "size must be"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_wrong_arguments(self, small_model, folder, tmp_path, arguments, reason):
        with pytest.raises(ValueError, match=reason):
            segment_files(small_model, folder, **{"prompts": "cat", "out": tmp_path / "out", **SETTINGS, **arguments})

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
        for _ in range(2):
            records = segment_files(small_model, folder, "cat", folder, **SETTINGS)
            assert [Path(r.image).name for r in records] == ["a.png", "b.jpg", "c.png"]

    @pytest.mark.parametrize("name", ["caf\udce9.png", "line\u2028separator.png", "猫.png", "a'b\"c.png"], ids=ascii)
    def test_any_file_name(self, small_model, picture, tmp_path, name):
        path = tmp_path / "in" / name
        path.parent.mkdir()
        with open(os.fsencode(path), "wb") as file:
            picture().save(file, "PNG")
        for expected in (1, 0):
            records = segment_files(small_model, path.parent, "cat", tmp_path / "out", resume=True, **SETTINGS)
            assert [r.status for r in records] == ["ok"] * expected
        assert [line["image"] for line in lines(tmp_path / "out")] == [str(path)]


class TestResume:
    @pytest.fixture
    def out(self, small_model, folder, tmp_path):
        segment_files(small_model, folder, "cat", tmp_path / "out", **SETTINGS)
        return tmp_path / "out"

    def again(self, small_model, folder, out, **arguments):
        records = segment_files(small_model, folder, "cat", out, resume=True, **{**SETTINGS, **arguments})
        assert sorted(Path(line["image"]).name for line in lines(out)) == ["a.png", "b.jpg", "c.png"]
        return [Path(r.image).name for r in records]

    def test_finished_images_are_kept(self, small_model, folder, out):
        stamp = (out / "a.overlay.png").stat().st_mtime_ns
        assert self.again(small_model, folder, out) == []
        assert (out / "a.overlay.png").stat().st_mtime_ns == stamp

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
        "line", ["7", "[]", "null", "{}", '{"status": "ok"}', '{"image": "a", "status": "ok"}', "text", ""], ids=repr
    )
    def test_strange_lines_are_passed_over(self, small_model, folder, out, line):
        content = (out / SUMMARY).read_text()
        (out / SUMMARY).write_text(line + "\n" + content)
        assert self.again(small_model, folder, out) == []

    def test_failures_get_another_try(self, small_model, folder, out, picture):
        (folder / "b.jpg").write_bytes(b"")
        segment_files(small_model, folder, "cat", out, **SETTINGS)
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
        assert (out.with_name("other") / "a.overlay.png").exists()

    def test_without_it_everything_is_done_anew(self, small_model, folder, out):
        assert len(segment_files(small_model, folder, "cat", out, **SETTINGS)) == 3
        assert len(lines(out)) == 3

    def test_names_given_to_other_inputs_stay_theirs(self, small_model, folder, out, tmp_path, picture):
        (tmp_path / "more").mkdir()
        picture().save(tmp_path / "more" / "a.png")
        first = (out / "a.labels.png").read_bytes()
        records = segment_files(small_model, tmp_path / "more", "dog", out, resume=True, **SETTINGS)
        assert records[0].files["labels"] == "a-2.labels.png"
        assert (out / "a.labels.png").read_bytes() == first
        assert len(lines(out)) == 4

    def test_into_a_new_folder(self, small_model, folder, tmp_path):
        assert len(self.again(small_model, folder, tmp_path / "new")) == 3
