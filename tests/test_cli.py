"""The command line: what it writes, says and returns."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

import gem_fast
from gem_fast import GemModel
from gem_fast.cli import app

COMMANDS = ("segment", "models", "info")


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
    """`gem-fast segment` on the folder of images into tmp_path/out with --size 64 and more arguments."""

    def run(*arguments, images=(folder,), prompts=("cat", "dog")):
        given = [part for prompt in prompts for part in ("--prompt", prompt)]
        return invoke("segment", *images, "--out", tmp_path / "out", "--size", 64, *given, *arguments)

    return run


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def summary(out):
    return [json.loads(line) for line in (out / "summary.jsonl").read_text(encoding="utf-8").splitlines()]


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class TestSegment:
    def test_happy_path(self, run, tmp_path):
        done = run()
        assert done.exit_code == 0, done.output
        assert f"3 images segmented into {tmp_path / 'out'}" in done.stdout
        assert [line["status"] for line in summary(tmp_path / "out")] == ["ok"] * 3
        assert (tmp_path / "out" / "sub" / "c.overlay.png").exists()
        legend = json.loads((tmp_path / "out" / "a.legend.json").read_text())
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

    def test_what_load_is_given(self, run, loaded, tmp_path):
        weights = tmp_path / "w.pt"
        options = ["--gem-blocks", 4, "--iterations", 2, "--inverse-temperature", 12.5, "--text-cache", tmp_path / "c"]
        assert run("--model", "ViT-B-16", "--weights", weights, "--dtype", "bfloat16", *options).exit_code == 0
        assert loaded == [
            {
                "name": "ViT-B-16",
                "pretrained": None,
                "weights": weights,
                "device": "cpu",
                "dtype": "bfloat16",
                "text_cache": tmp_path / "c",
                "gem_blocks": 4,
                "iterations": 2,
                "inverse_temperature": 12.5,
            }
        ]

    def test_what_segment_is_given(self, run, monkeypatch):
        calls, whole = [], GemModel.segment

        def segment(self, images, prompts, **settings):
            calls.append((prompts, settings))
            return whole(self, images, prompts, **settings)

        monkeypatch.setattr(GemModel, "segment", segment)
        assert run("--threshold", 0.25, "--resize", "squash", "--batch-size", 3).exit_code == 0
        ((prompts, settings),) = calls
        assert list(prompts) == ["cat", "dog"]
        assert settings["size"] == 64
        assert (settings["threshold"], settings["resize"], settings["batch_size"]) == (0.25, "squash", 3)
        assert settings["templates"] == "photo"

    def test_failed_images_are_named_and_the_status_is_1(self, run, folder, tmp_path):
        (folder / "aa.png").write_bytes(b"no image")
        done = run()
        assert done.exit_code == 1
        assert "3 images segmented" in done.stdout
        assert f"failed: {folder / 'aa.png'}: not an image" in done.stderr
        assert "1 of 4 images failed" in done.stderr
        assert len(summary(tmp_path / "out")) == 4

    def test_interruption_is_130_and_resume_goes_on(self, run, tmp_path, monkeypatch):
        calls, whole = [], GemModel.segment

        def segment(self, *arguments, **settings):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return whole(self, *arguments, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(GemModel, "segment", segment)
            done = run("--batch-size", 2)
        assert done.exit_code == 130
        assert f"interrupted; what was finished is in {tmp_path / 'out'}" in done.stderr
        assert len(summary(tmp_path / "out")) == 2
        assert not list((tmp_path / "out").glob("*.tmp"))
        again = run("--resume")
        assert again.exit_code == 0
        assert "1 image segmented" in again.stdout
        assert len(summary(tmp_path / "out")) == 3
        nothing = run("--resume")
        assert nothing.exit_code == 0
        assert "0 images segmented" in nothing.stdout

    def test_warnings_are_short(self, run, small_model, monkeypatch):
        monkeypatch.setattr(small_model.text, "known_tokens", frozenset({0}))
        monkeypatch.setattr(small_model.text, "memory", {})
        done = run(prompts=["zebra"])
        assert done.exit_code == 0
        assert "gem-fast: this model's vocabulary does not hold: zebra; " in done.stderr
        assert "UserWarning" not in done.stderr

    def test_overlays_can_be_left_out(self, run, tmp_path):
        assert run("--no-overlays").exit_code == 0
        assert not list((tmp_path / "out").rglob("*.overlay.png"))
        assert (tmp_path / "out" / "sub" / "c.labels.png").exists()

    def test_heat_maps(self, run, tmp_path):
        assert run().exit_code == 0
        assert not list((tmp_path / "out").glob("*.npz"))
        assert run("--heatmaps").exit_code == 0
        assert (tmp_path / "out" / "sub" / "c.heatmaps.npz").exists()


class TestPrompts:
    def names(self, run, tmp_path, *arguments, **named):
        done = run(*arguments, **named)
        assert done.exit_code == 0, done.output
        legend = json.loads((tmp_path / "out" / "a.legend.json").read_text(encoding="utf-8"))
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


def test_models_lists_each_with_its_tags():
    done = invoke("models")
    assert done.exit_code == 0
    for name in gem_fast.supported_models():
        assert re.search(rf"(?m)^\W*{re.escape(name)}\s", done.stdout), name
    assert "openai" in done.stdout
    assert "(embedded)" in done.stdout


def test_models_in_a_pipe_has_a_line_for_each():
    """`gem-fast models | grep B-16` must find the tags on the line of the name."""
    done = CliRunner().invoke(app, ["models"], env={"COLUMNS": "60"})
    (line,) = [line for line in done.stdout.splitlines() if re.match(r"\W*ViT-B-32\s", line)]
    for tag in gem_fast.pretrained_tags("ViT-B-32"):
        assert tag in line


def test_info_says_what_a_report_needs():
    done = invoke("info")
    assert done.exit_code == 0
    for expected in (
        "Python",
        "threads",
        "reference, sdpa",
        "bfloat16 on the CPU: ",
        "decoding on the CPU: ",
        "gem_fast",
        "torch",
        "open_clip_torch",
    ):
        assert expected in done.stdout


def test_info_says_what_a_gpu_would_run(monkeypatch):
    """A fake GPU: its tensors, and what the driver would say of it."""
    properties = SimpleNamespace(name="H100", major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.version, "hip", None)
    for name, answer in {"device_count": 1, "get_device_name": "H100", "is_initialized": True}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    with FakeTensorMode():
        text = info_text()
        for expected in (
            "attention, bfloat16 on cuda:0: triton",
            "float32 on cuda:0: sdpa",
            "decoding on cuda:0: triton",
        ):
            assert expected in text
        properties.minor = 1  # an architecture that nothing was compiled for
        text = info_text()
        assert "bfloat16 on cuda:0: sdpa" in text
        assert "decoding on cuda:0: torch" in text
        monkeypatch.setenv("GEM_FAST_BACKEND", "triton")
        text = info_text()
        assert "bfloat16 on cuda:0: triton" in text
        assert "float32 on the CPU: none, the backend 'triton' can't serve: qkv is on cpu" in text


def info_text():
    done = invoke("info")
    assert done.exit_code == 0
    return " ".join(done.stdout.split())


def test_info_says_why_the_native_kernel_is_missing(monkeypatch):
    monkeypatch.setattr("gem_fast.kernels.cpu_library._MISSING", "no compiler")
    done = invoke("info")
    assert "bfloat16 on the CPU: sdpa" in done.stdout
    assert "decoding on the CPU: torch" in done.stdout
    assert "cpu can't serve: no compiler" in done.stdout


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda parts: " ".join(parts) or "all")
def test_help(command):
    done = invoke(*command, "--help")
    assert done.exit_code == 0
    text = plain(done.stdout)
    assert "Usage: " in text
    assert " . " not in text  # square brackets in a help text are taken for markup, and vanish
    for expected in {
        (): COMMANDS,
        ("segment",): ("--prompts-file", "--resume", "130 if interrupted", "default: the model's"),
    }.get(command, ()):
        assert expected in text
