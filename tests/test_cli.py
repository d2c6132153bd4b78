"""`gem-fast segment`: what it writes, says and returns."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gem_fast
import gem_fast.batch
from gem_fast.batch.records import Journal
from gem_fast.terminal import ended_by_signals
from tests.command_line import invoke, plain


@pytest.fixture
def loaded(monkeypatch, small_model):
    """Arguments of `gem_fast.load`, which gives the small model whatever it is asked for."""
    calls = []

    def load(name, pretrained=None, **arguments):
        calls.append({"name": name, "pretrained": pretrained, **arguments})
        return small_model

    monkeypatch.setattr(gem_fast, "load", load)
    return calls


@pytest.fixture
def run(tmp_path, folder, loaded):
    """`gem-fast segment` on the folder of images into tmp_path/out with --size 64, a worker and more arguments."""
    settings = ("--size", 64, "--workers", 1)

    def run(*arguments, images=(folder,), prompts=("cat", "dog")):
        given = [part for prompt in prompts for part in ("--prompt", prompt)]
        return invoke("segment", *images, "--out", tmp_path / "out", *settings, *given, *arguments)

    return run


def summary(out):
    return [json.loads(line) for line in (out / "summary.jsonl").read_text(encoding="utf-8").splitlines()]


class TestSegment:
    def test_happy_path(self, run, tmp_path):
        done = run()
        assert done.exit_code == 0, done.output
        assert f"3 images segmented into {tmp_path / 'out'}" in done.stdout
        assert [line["status"] for line in summary(tmp_path / "out")] == ["ok"] * 3
        assert (tmp_path / "out" / "sub" / "c.overlay.jpg").exists()
        legend = json.loads((tmp_path / "out" / "legend.json").read_text())
        assert [entry["name"] for entry in legend.values()] == ["background", "cat", "dog"]

    def test_one_image_is_singular(self, run, folder):
        assert "1 image segmented into" in run(images=[folder / "a.png"]).stdout

    def test_with_a_model_of_its_own(self, folder, tmp_path):
        done = invoke(
            "segment", folder / "a.png", "--out", tmp_path / "out", "--prompt", "cat", "--size", 64,
            "--model", "ViT-S-32-alt", "--pretrained", "random", "--gem-blocks", 2, "--batch-size", 1,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert "Model initialized randomly" not in done.output

    @pytest.mark.parametrize("dtype", ["bfloat16", "bf16"])
    def test_what_load_is_given(self, run, loaded, tmp_path, dtype):
        weights = tmp_path / "w.pt"
        options = ["--gem-blocks", 4, "--iterations", 2, "--inverse-temperature", 12.5, "--text-cache", tmp_path / "c"]
        assert (
            run(
                "--model", "ViT-B-16", "--weights", weights, "--dtype", dtype, "--text-dtype", "fp16", *options
            ).exit_code
            == 0
        )
        assert loaded == [
            {
                "name": "ViT-B-16",
                "pretrained": None,
                "weights": weights,
                "device": "cpu",
                "dtype": "bfloat16",
                "text_dtype": "float16",
                "text_cache": tmp_path / "c",
                "method": "gem",
                "gem_blocks": 4,
                "iterations": 2,
                "inverse_temperature": 12.5,
                "feature_surgery": False,
            }
        ]

    def test_choices_of_a_family_are_handed_on(self, run, loaded):
        given = ["--pooling", "value", "--rotated", "--sigmoid", "--device", "meta", "--method", "clip"]
        assert run(*given, "--feature-surgery", "--tokenizer", "t", "--iterations", 0).exit_code == 0
        wanted = {"pooling": "value", "rotated": True, "sigmoid": True, "device": "meta", "method": "clip"}
        wanted |= {"feature_surgery": True, "tokenizer": Path("t"), "iterations": 0}
        assert wanted.items() <= loaded[0].items()

    @pytest.mark.parametrize(
        ("option", "reason"),
        [(["--pooling", "value"], "is for heads that attend"), (["--rotated"], "is for towers with rotary positions")],
    )
    @pytest.mark.parametrize("command", ["segment", "export", "evaluate"])
    def test_each_command_has_them(self, folder, tmp_path, command, option, reason):
        given = {
            "segment": [folder, "--prompt", "cat", "--out", tmp_path / "out"],
            "export": ["--out", tmp_path / "out"],
            "evaluate": ["--data", "scenes"],
        }
        done = invoke(command, *given[command], *option)
        assert done.exit_code == 2
        assert reason in plain(done.output)

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["segment", "{folder}", "--prompt", "cat", "--out", ""], "an empty argument, after --out"),
            (["segment", "{folder}", "--prompt", "cat", "--out="], "an empty argument, --out="),
            (["segment", "", "--prompt", "cat", "--out", "{folder}/out"], "an empty argument: a variable"),
            (["export", "--out", "{folder}/out", "--weights", ""], "an empty argument, after --weights"),
            (["study", "runtimes", "--out", ""], "an empty argument, after --out"),
        ],
        ids=str,
    )
    def test_an_empty_argument_is_no_path(self, folder, monkeypatch, arguments, told):
        monkeypatch.chdir(folder)
        before = sorted(folder.rglob("*"))
        done = invoke(*(each.format(folder=folder) for each in arguments))
        assert done.exit_code == 2
        assert told in " ".join(plain(done.output).replace("│", " ").split())
        assert sorted(folder.rglob("*")) == before

    def test_a_value_may_end_like_one(self, run):
        assert run("--background=1+1=", "--background", "x=").exit_code == 0

    def test_what_a_run_is_given(self, run, monkeypatch):
        calls, whole = [], gem_fast.batch.segment_files

        def segment_files(model, images, prompts, out, *, progress, on_record, **options):
            calls.append((list(prompts), options))
            return whole(model, images, prompts, out, progress=progress, **options)

        monkeypatch.setattr("gem_fast.batch.segment_files", segment_files)
        drawn = ["--overlay-format", "webp", "--overlay-size", 900, "--label-size", 32]
        given = ["--threshold", 0.25, "--resize", "squash", "--batch-size", 3, "--workers", 2, "--timeout", 9]
        given += ["--format", "tar", "--shard-size", 7, "--part", "1/2"]
        assert run(*given, "--retries", 1, "--max-errors", 5, *drawn, "--background", "sky").exit_code == 0
        ((prompts, options),) = calls
        assert prompts == ["cat", "dog"]
        assert options == {
            "overlays": True,
            "overlay_format": "webp",
            "overlay_size": 900,
            "label_size": 32,
            "heatmaps": False,
            "format": "tar",
            "shard_size": 7,
            "part": "1/2",
            "resume": False,
            "overwrite": False,
            "batch_size": 3,
            "workers": 2,
            "processes": None,
            "timeout": 9,
            "retries": 1,
            "max_errors": 5,
            "background": ["sky"],
            "size": 64,
            "resize": "squash",
            "threshold": 0.25,
            "templates": "photo",
            "window": None,
            "stride": None,
        }

    def test_failed_images_are_named_and_the_status_is_1(self, run, folder, tmp_path):
        (folder / "aa.png").write_bytes(b"no image")
        done = run()
        assert done.exit_code == 1
        assert "3 images segmented" in done.stdout
        assert f"failed: {folder / 'aa.png'}: not an image" in done.stderr
        assert "1 of 4 images failed" in done.stderr
        assert done.stderr.count("failed: ") == 1
        assert len(summary(tmp_path / "out")) == 4

    def test_interruption_is_130_and_resume_goes_on(self, run, tmp_path, monkeypatch):
        whole = Journal.write

        def write(self, position, record):
            whole(self, position, record)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "write", write)
            done = run()
        assert done.exit_code == 130
        assert f"interrupted; what was finished is in {tmp_path / 'out'}" in done.stderr
        assert len(summary(tmp_path / "out")) == 1
        assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]
        again = run("--resume")
        assert again.exit_code == 0
        assert "2 images segmented" in again.stdout
        assert "1 kept from the earlier run" in again.stdout
        assert len(summary(tmp_path / "out")) == 3
        nothing = run("--resume")
        assert nothing.exit_code == 0
        assert "0 images segmented" in nothing.stdout

    def test_an_earlier_run_is_refused_before_anything_is_loaded(self, run, tmp_path, loaded):
        assert run().exit_code == 0
        before = (tmp_path / "out" / "summary.jsonl").read_bytes()
        done = run()
        assert done.exit_code == 2
        assert "holds an earlier run: take --resume to go on with it or --overwrite to begin anew" in done.stderr
        assert (tmp_path / "out" / "summary.jsonl").read_bytes() == before
        assert len(loaded) == 1
        assert run("--overwrite").exit_code == 0
        assert run("--overwrite", "--resume").exit_code == 2

    def test_another_question_is_refused(self, run, tmp_path):
        assert run().exit_code == 0
        before = (tmp_path / "out" / "summary.jsonl").read_bytes()
        done = run("--resume", prompts=("dog", "cat"))
        assert done.exit_code == 2
        assert "prompts was cat, dog, now dog, cat" in done.stderr
        assert (tmp_path / "out" / "summary.jsonl").read_bytes() == before

    def test_many_failures_are_counted_by_reason(self, run, folder):
        for i in range(25):
            (folder / f"broken{i:02}.png").write_bytes(b"")
        done = run()
        assert done.exit_code == 1
        assert done.stderr.count("failed: ") == 21
        assert "failed: 25 × the file is empty" in done.stderr
        assert "25 of 28 images failed; all of them are in" in done.stderr

    @pytest.mark.parametrize("format", ["files", "tar"])
    def test_the_failure_that_stops_a_run_is_told(self, run, folder, tmp_path, format):
        """Of an open shard there is no line: a file that has none of it is not named."""
        (folder / "aa.png").write_bytes(b"")
        done = run("--max-errors", 0, "--format", format)
        assert done.exit_code == 1
        assert f"failed: {folder / 'aa.png'}: the file is empty" in done.stderr
        assert ("errors.jsonl" in done.stderr) == (tmp_path / "out" / "errors.jsonl").exists() == (format == "files")

    @pytest.mark.parametrize("console", ["console", "errors"])
    def test_a_reader_that_leaves_changes_no_status(self, console):
        read, write = os.pipe()
        os.close(read)
        code = f"from gem_fast.terminal import {console}, say\nfor line in 'abc': say(line, to={console})"
        with open(write, "wb") as output:
            streams = {"stdout": output} if console == "console" else {"stderr": output}
            assert subprocess.run([sys.executable, "-c", code], check=False, **streams).returncode == 0

    def test_a_label_size_without_end(self, run):
        done = run("--label-size", "9" * 5000)
        assert done.exit_code == 2
        assert "label_size must be model or a positive number of pixels" in done.stderr

    def test_what_is_passed_over_is_told(self, run, folder):
        (folder / "notes.txt").write_text("")
        (folder / ".hidden.png").write_text("")
        done = run()
        assert f"passed over 1 files that are no images: {folder / 'notes.txt'}" in done.stderr
        assert f"passed over 1 hidden files and folders: {folder / '.hidden.png'}" in done.stderr

    def test_statistics(self, run, tmp_path, folder):
        (folder / "aa.png").write_bytes(b"")
        assert run("--stats", tmp_path / "stats.json").exit_code == 1
        told = json.loads((tmp_path / "stats.json").read_text())
        assert (told["done"], told["failed"], told["kept"], told["total"]) == (3, 1, 0, 4)
        assert set(told["stages"]) == {"read", "resize", "encode", "decode scores", "encode files", "write"}
        assert min(told["stages"].values()) >= 0
        assert told["failures"] == {"the file is empty": 1}

    def test_statistics_that_can_not_be_written(self, run, tmp_path):
        done = run("--stats", tmp_path)
        assert done.exit_code == 2
        assert f"--stats {tmp_path} can't be written: Is a directory; what was finished is in" in done.stderr

    def test_progress_as_json(self, run):
        done = run("--progress", "json")
        assert json.loads(done.stderr.splitlines()[-1])["done"] == 3

    def test_a_signal_ends_a_run_as_ctrl_c_does(self, folder, tmp_path, picture):
        """Images that never end, through a reader that is slow; the run is whole and can be resumed."""
        for i in range(300):
            picture(40, 64, i).save(folder / f"{i:03}.png")
        command = [sys.executable, "-m", "gem_fast", "segment", folder, "--prompt", "cat", "--out", tmp_path / "out"]
        process = subprocess.Popen([*map(str, command), "--batch-size", "1"], stderr=subprocess.PIPE, text=True)
        path = tmp_path / "out" / "summary.jsonl"
        deadline = time.monotonic() + 60
        while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.terminate()
        _, told = process.communicate(timeout=60)
        assert process.returncode == 130, told
        assert "interrupted; what was finished is in" in told
        assert "Traceback" not in told
        assert 0 < len(summary(tmp_path / "out")) < 303
        assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]

    @pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there are no such signals")
    @pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
    def test_each_signal_is_an_interruption_for_as_long_as_the_run(self, name):
        number, heard = getattr(signal, name), []

        def interrupts():
            try:
                signal.raise_signal(number)
            except KeyboardInterrupt:
                return True
            return False

        earlier = signal.signal(number, lambda *_: heard.append(name))
        try:
            with ended_by_signals():
                assert interrupts()
            assert not interrupts()
            assert heard == [name]
            signal.signal(number, signal.SIG_IGN)
            with ended_by_signals():
                assert not interrupts()  # as under nohup
        finally:
            signal.signal(number, earlier)

    def test_warnings_are_short(self, run, small_model, monkeypatch):
        monkeypatch.setattr(small_model.text, "known_tokens", frozenset({0}))
        monkeypatch.setattr(small_model.text, "memory", {})
        done = run(prompts=["zebra"])
        assert done.exit_code == 0
        assert "gem-fast: this model's vocabulary does not hold: zebra; " in done.stderr
        assert "UserWarning" not in done.stderr

    def test_overlays_can_be_left_out(self, run, tmp_path):
        assert run("--no-overlays").exit_code == 0
        assert not list((tmp_path / "out").rglob("*.overlay.*"))
        assert (tmp_path / "out" / "sub" / "c.labels.png").exists()

    def test_heat_maps(self, run, tmp_path):
        assert run().exit_code == 0
        assert not list((tmp_path / "out").glob("*.npz"))
        assert run("--heatmaps", "--resume").exit_code == 0
        assert (tmp_path / "out" / "sub" / "c.heatmaps.npz").exists()


class TestPrompts:
    def names(self, run, tmp_path, *arguments, **named):
        done = run("--overwrite", *arguments, **named)
        assert done.exit_code == 0, done.output
        legend = json.loads((tmp_path / "out" / "legend.json").read_text(encoding="utf-8"))
        return [entry["name"] for entry in legend.values()][1:]

    def test_file_and_options_together(self, run, tmp_path):
        path = tmp_path / "classes.txt"
        path.write_bytes("\ufeff# classes\ncar, automobile\n\n猫\ncat\n".encode())
        assert self.names(run, tmp_path, "--prompts-file", path) == ["cat", "dog", "car", "猫"]
        assert self.names(run, tmp_path, "--prompts-file", path, prompts=()) == ["car", "猫", "cat"]

    def test_the_same_prompt_twice_is_one_class(self, run, tmp_path):
        assert self.names(run, tmp_path, prompts=("cat", "dog", "cat")) == ["cat", "dog"]

    @pytest.mark.parametrize(
        ("content", "reason"), [(b"", "names no class"), (b"\xff\xfe\x00", "UTF-8"), (None, "can't be read")]
    )
    def test_unusable_file(self, run, tmp_path, loaded, content, reason):
        path = tmp_path / "classes.txt"
        if content is not None:
            path.write_bytes(content)
        done = run("--prompts-file", path)
        assert done.exit_code == 2
        assert f"prompts file {path}" in done.stderr
        assert reason in done.stderr
        assert loaded == []

    def test_none(self, run, loaded):
        done = run(prompts=())
        assert done.exit_code == 2
        assert "name at least one class with --prompt or --prompts-file" in done.stderr
        assert loaded == []

    def test_empty(self, run):
        done = run(prompts=("cat", " "))
        assert done.exit_code == 2
        assert "none of them empty" in done.stderr

    @pytest.mark.parametrize("templates", [["imagenet"], ["the {}"], ["a {}", "the {}"], ["photo", "my {}"]], ids=str)
    def test_templates(self, run, tmp_path, templates, monkeypatch):
        # 80 templates of real text are a second of work
        monkeypatch.setattr(
            "gem_fast.prompts.TEMPLATES", {"photo": ("a photo of a {}.",), "imagenet": ("art of {}", "{}")}
        )
        given = [part for template in templates for part in ("--templates", template)]
        assert self.names(run, tmp_path, *given) == ["cat", "dog"]

    @pytest.mark.parametrize("template", ["a photo", "{} {}", "fotos"])
    def test_unusable_template(self, run, template):
        done = run("--templates", template)
        assert done.exit_code == 2
        assert f"one {{}} for the class, got {template!r}; named ones: photo, imagenet" in done.stderr


class TestStatus2:
    """Nothing could be started: one line that says what is wrong, and no traceback."""

    def check(self, done, *reasons):
        assert done.exit_code == 2
        assert isinstance(done.exception, SystemExit)
        for reason in reasons:
            assert reason in plain(done.stderr)
        assert "Traceback" not in done.output
        assert "segmented" not in done.stdout

    def test_missing_image(self, run, tmp_path):
        self.check(run(images=[tmp_path / "no.jpg"]), f"gem-fast: {tmp_path / 'no.jpg'}: no such file or folder")
        assert not (tmp_path / "out").exists()

    def test_folder_without_images(self, run, tmp_path):
        (tmp_path / "empty").mkdir()
        self.check(run(images=[tmp_path / "empty"]), "no images found", ".webp")

    def test_out_is_a_file(self, run, tmp_path):
        (tmp_path / "out").write_text("")
        self.check(run(), f"the output folder {tmp_path / 'out'} is a file")

    @pytest.mark.parametrize(
        ("arguments", "reasons"),
        [
            (["--model", "ViT-B-17"], ["no model is called 'ViT-B-17'", "ViT-B-16"]),
            (["--model", "RN50", "--pretrained", "openai"], ["RN50 is not supported", "ResNet"]),
            (["--model", "ViT-B-16"], ["needs either pretrained", "openai"]),
            (["--model", "ViT-B-16", "--pretrained", "opanai"], ["no weights 'opanai'", "openai"]),
            (["--model", "ViT-B-16", "--weights", "no.pt"], ["there is no file no.pt"]),
            (["--model", "ViT-S-32-alt", "--pretrained", "random", "--device", "gpu"], ["'gpu' can't be used here"]),
            (["--model", "ViT-S-32-alt", "--pretrained", "random", "--gem-blocks", "0"], ["gem_blocks"]),
        ],
        ids=["unknown-model", "resnet", "no-weights", "unknown-tag", "missing-weights", "device", "gem-blocks"],
    )
    def test_model(self, folder, tmp_path, arguments, reasons):
        self.check(invoke("segment", folder, "--out", tmp_path / "out", "--prompt", "cat", *arguments), *reasons)

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--dtype", "float8"], "'--dtype'"),
            (["--text-dtype", "int8"], "'--text-dtype'"),
            (["--resize", "crop"], "'--resize'"),
            (["--batch-size", "0"], "'--batch-size'"),
            (["--size", "0"], "'--size'"),
            (["--size", "big"], "'--size'"),
            (["--threshold", "1.5"], "'--threshold'"),
            (["--tresh", "1"], "No such option"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_wrong_option(self, run, loaded, arguments, reason):
        self.check(run(*arguments), reason)
        assert loaded == []

    def test_no_output_folder(self, folder):
        self.check(invoke("segment", folder, "--prompt", "cat"), "--out")

    def test_unknown_command(self):
        self.check(invoke("segmentt"), "segmentt")
