"""Exported models on the command line, and where torch can't be imported at all."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gem_fast import segment_files
from gem_fast.demo import SAMPLES
from gem_fast.runtime import GemRuntime
from tests.command_line import invoke
from tests.runtime.runtime_exports import engine, exported

# What a machine that only deploys does not have.
FORBID = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "open_clip", "safetensors", "onnx", "triton"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Forbidden())
"""
SEGMENT = """
import numpy as np
from gem_fast.runtime import GemRuntime

folder, image, out = sys.argv[1:]
result = GemRuntime(folder, threads=1).segment(image, ["dog", ("bicycle", "bike")], background=["tree"])
np.savez(out, labels=result.labels, heatmaps=result.heatmaps, confidence=result.confidence)
"""
MODULES = """
import gem_fast.decoding, gem_fast.batch, gem_fast.images, gem_fast.options, gem_fast.preprocess, gem_fast.prompts
import gem_fast.rendering, gem_fast.segmentation, gem_fast.segmenter
from gem_fast import Defaults, ImageError, ModelError, Segmentation, segment_files

try:
    from gem_fast import load
except ModelError as error:
    print(error)
"""
COMMAND = """
from gem_fast.cli import main

main()
"""


def without_torch(code, *arguments):
    """A fresh interpreter in which importing torch and its kin fails."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", FORBID + code, *map(str, arguments)]
    # Not in the checkout, whose folders are not laid out as they are installed.
    return subprocess.run(command, cwd=exported(), env=environment, capture_output=True, text=True, check=False)


class TestWithoutTorch:
    def test_the_runtime_gives_the_engines_labels(self, tmp_path):
        image, out = SAMPLES / "dog_bicycle.png", tmp_path / "result.npz"
        run = without_torch(SEGMENT, exported(), image, out)
        assert run.returncode == 0, run.stderr
        theirs = engine().segment(str(image), ["dog", ("bicycle", "bike")], background=["tree"], resize="squash")
        with np.load(out) as ours:
            assert (ours["labels"] == theirs.labels).mean() >= 0.9999
            np.testing.assert_allclose(ours["heatmaps"], theirs.heatmaps, atol=2e-5)
            np.testing.assert_allclose(ours["confidence"], theirs.confidence, atol=5e-5)
        assert {1, 2} <= set(np.unique(theirs.labels))

    def test_the_command_line_segments(self, folder, tmp_path):
        out = tmp_path / "out"
        arguments = ["segment", folder, "--prompt", "cat", "--out", out, "--runtime", exported(), "--heatmaps"]
        run = without_torch(COMMAND, *arguments)
        assert run.returncode == 0, run.stderr
        assert "3 images segmented" in run.stdout
        assert len(list(out.rglob("*.heatmaps.npz"))) == 3

    def test_what_is_shared_imports_and_what_is_not_names_the_extra(self):
        run = without_torch(MODULES)
        assert run.returncode == 0, run.stderr
        assert run.stdout.strip() == (
            'gem_fast.load needs torch, which is not installed: pip install "gem_fast[engine]"'
        )

    @pytest.mark.parametrize("command", [["models"], ["segment", "IMAGE", "--prompt", "cat", "--out", "OUT"]], ids=str)
    def test_commands_that_need_the_engine_say_so(self, folder, tmp_path, command):
        named = {"IMAGE": folder, "OUT": tmp_path / "out"}
        run = without_torch(COMMAND, *(named.get(part, part) for part in command))
        assert run.returncode == 2
        assert 'not installed: pip install "gem_fast[engine]"' in run.stderr
        assert "Traceback" not in run.stderr

    def test_help(self):
        run = without_torch(COMMAND, "segment", "--help")
        assert run.returncode == 0
        assert "--runtime" in run.stdout


class TestCommand:
    @pytest.fixture
    def run(self, folder, tmp_path):
        def run(*arguments, images=(folder,)):
            given = ["--prompt", "cat", "--prompt", "dog", "--runtime", exported(), "--threads", 1]
            return invoke("segment", *images, "--out", tmp_path / "out", *given, *arguments)

        return run

    def test_writes_what_the_engine_does(self, run, tmp_path, folder):
        done = run("--heatmaps", "--threshold", 0.3, "--background", "tree")
        assert done.exit_code == 0, done.output
        settings = {"threshold": 0.3, "background": ["tree"], "resize": "squash", "heatmaps": True}
        segment_files(engine(), folder, {"cat": ["cat"], "dog": ["dog"]}, tmp_path / "theirs", **settings)
        names = {path.relative_to(tmp_path / "theirs") for path in (tmp_path / "theirs").rglob("*") if path.is_file()}
        assert names == {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
        assert len(names) == 12
        for name in names:
            ours, theirs = tmp_path / "out" / name, tmp_path / "theirs" / name
            if name.name.endswith(".labels.png"):
                assert (np.asarray(Image.open(ours)) == np.asarray(Image.open(theirs))).mean() >= 0.9999
            elif name.name == "legend.json":
                assert ours.read_bytes() == theirs.read_bytes()

    def test_failures_are_recorded_and_resume_goes_on(self, run, folder, tmp_path):
        (folder / "aa.png").write_bytes(b"no image")
        done = run()
        assert done.exit_code == 1
        assert "3 images segmented" in done.stdout
        assert f"failed: {folder / 'aa.png'}: not an image" in done.stderr
        Image.new("RGB", (40, 30)).save(folder / "aa.png")
        again = run("--resume")
        assert again.exit_code == 0
        assert "1 image segmented" in again.stdout
        lines = (tmp_path / "out" / "summary.jsonl").read_text().splitlines()
        assert [json.loads(line)["status"] for line in lines] == ["ok"] * 4

    def test_a_policy_that_fits_some_images_fails_for_the_others(self, run, folder, picture):
        picture(64, 64).save(folder / "square.png")
        done = run("--resize", "shorter", "--size", 96)
        assert done.exit_code == 1
        assert "1 image segmented" in done.stdout
        assert "3 of 4 images failed" in done.stderr
        assert "leave out resize for the nearest" in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--model", "ViT-B-16", "--dtype", "float32"], "--model, --dtype can't go with --runtime"),
            (["--text-cache", "x"], "--text-cache can't go with --runtime"),
            (["--text-dtype", "bf16"], "--text-dtype can't go with --runtime"),
            (["--provider", "cuda"], "provider 'cuda' is not in this onnxruntime; available here:"),
            (["--size", "64"], "size 64 was not exported; the exported sizes are 96x96"),
            (["--threads", "0"], "--threads"),
            (["--precision", "float16"], "precision is OpenVINO's, and the provider is cpu: leave it out"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_status_2(self, run, arguments, reason):
        done = run(*arguments)
        assert done.exit_code == 2
        assert reason in done.stderr
        assert isinstance(done.exception, SystemExit)

    def test_a_folder_that_is_no_export(self, folder, tmp_path):
        done = invoke("segment", folder, "--prompt", "cat", "--out", tmp_path / "out", "--runtime", folder)
        assert done.exit_code == 2
        assert f"{folder} is no exported model" in done.stderr

    def test_a_graph_that_cannot_be_computed(self, folder, tmp_path):
        """Of a manifest that speaks of longer texts than the graph has room for."""
        copied = shutil.copytree(exported(), tmp_path / "copy")
        manifest = json.loads((copied / "manifest.json").read_text(encoding="utf-8"))
        manifest["text"].update(filled=True, context_length=999)
        (copied / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        done = invoke("segment", folder, "--prompt", "cat", "--out", tmp_path / "out", "--runtime", copied)
        assert done.exit_code == 2
        assert "gem-fast: text_encoder.onnx: " in done.stderr

    def test_the_engines_name_is_no_folder(self, folder, tmp_path):
        """`--runtime onnx DIR`, as other tools have it, would take the export for a folder of images."""
        arguments = ("--prompt", "cat", "--out", tmp_path / "out", "--runtime", "onnx", exported(), folder)
        done = invoke("segment", *arguments)
        assert done.exit_code == 2
        assert f"there is no folder onnx; --runtime {exported()} would run the export there" in done.stderr
        assert not (tmp_path / "out").exists()

    def test_its_options_need_it(self, folder, tmp_path):
        done = invoke("segment", folder, "--prompt", "cat", "--out", tmp_path / "out", "--provider", "cpu")
        assert done.exit_code == 2
        assert "--provider can only go with --runtime" in done.stderr

    def test_a_missing_package_names_the_extra(self, run, monkeypatch):
        exported()  # while nothing is missing
        monkeypatch.delitem(sys.modules, "gem_fast.runtime")
        monkeypatch.setitem(sys.modules, "tokenizers", None)
        for name in [name for name in sys.modules if name.startswith(("gem_fast.runtime.", "gem_fast.tokenizer_file"))]:
            monkeypatch.delitem(sys.modules, name)
        done = run()
        assert done.exit_code == 2
        assert (
            'gem_fast.runtime needs tokenizers, which is not installed: pip install "gem_fast[runtime]"' in done.stderr
        )


def test_info_names_the_extras(monkeypatch):
    assert "CPUExecutionProvider" in invoke("info").stdout
    monkeypatch.setattr(sys.modules["gem_fast.cli.info"], "find_spec", lambda name: None)
    done = invoke("info")
    assert done.exit_code == 0
    for extra in ("engine", "runtime"):
        assert f'not installed: pip install "gem_fast[{extra}]"' in done.stdout


def test_many_files_in_batches(folder, tmp_path):
    outcome = segment_files(GemRuntime(exported(), threads=1), folder, "cat", tmp_path, batch_size=2)
    assert (outcome.done, outcome.failed) == (3, 0)


def test_a_copy_in_another_process_gives_the_same_scores():
    model = GemRuntime(exported(), threads=1)
    query, shape = model.query("cat"), (96, 96)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    copy = pickle.loads(pickle.dumps(model.replica(query)))("cpu:0", 1)
    assert np.array_equal(copy(pixels, shape, None), model.score_on_host(pixels, shape, query))


def test_a_model_that_has_run_is_copied_without_its_graphs(picture):
    model = GemRuntime(exported(), threads=1)
    truth = model.segment(picture(), ["cat", "dog"])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.options == model.options
        result = other.segment(picture(), ["cat", "dog"])
        assert np.array_equal(result.scores, truth.scores)
        assert np.array_equal(result.labels, truth.labels)
