"""What `gem-fast export` refuses, finds wrong or is interrupted in: each told, and nothing half-written left."""

import os
import sys

import pytest
from gem_fast.export import ExportError, ExportOptions, export_onnx
from gem_fast.export import graph_files as module
from gem_fast.export.checked_session import open_session
from gem_fast.export.export_options import parse_size
from gem_fast.export.layers import Layers
from gem_fast.export.tensorrt.tensorrt_export import export_tensorrt
from gem_fast.export.verdict import DisagreementError
from typer.testing import CliRunner

import gem_fast
from gem_fast.cli import app
from gem_fast.runtime.folder import verify_files
from gem_fast.runtime.manifest import read_manifest
from tests.runtime.runtime_exports import exported


@pytest.fixture(scope="module")
def tiny():
    return gem_fast.load("gem-tiny")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"opset": 17}, "opset must be 18 to 24, got 17"),
        ({"opset": 99}, "18 to 24"),
        ({"opset": 22, "attention": "onnx"}, "needs opset 23"),
        ({"attention": "flash"}, "portable, onnx, ort"),
        ({"dtype": "float64"}, r"float32, bfloat16, float16 \(or fp32, bf16, fp16\), got float64"),
        ({"quantize": "int4"}, "int8"),
        ({"quantize": "int8", "dtype": "fp16"}, "goes with dtype float32, got float16"),
        ({"dynamic_size": True, "sizes": ((64, 64),)}, "leave out sizes"),
        ({"dynamic_size": True, "with_preprocess": True}, "leave out dynamic_size"),
        ({"sizes": ((64, 64), (64, 64))}, "each size may come once"),
    ],
    ids=str,
)
def test_wrong_options_are_named(options, reason):
    with pytest.raises(ExportError, match=reason):
        ExportOptions(**options)


@pytest.mark.parametrize("long", ["float32", "bfloat16", "float16"])
def test_types_have_a_long_and_a_short_name(tiny, tmp_path, long):
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[long]
    assert ExportOptions(dtype=short) == ExportOptions(dtype=long)
    arguments = ["--size", "32", "--gem-blocks", "1", "--no-check", "--out"]
    for name in (long, short):
        done = CliRunner().invoke(app, ["export", "--dtype", name, *arguments, str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert read_manifest(tmp_path / name).export.dtype == long
    assert read_manifest(tmp_path / long).files == read_manifest(tmp_path / short).files


@pytest.mark.parametrize("text", ["", "x", "64x", "4x4x4", "-8", "8.5"])
def test_wrong_sizes_are_named(text):
    with pytest.raises(ExportError, match="like 448 or 448x640"):
        parse_size(text)


def test_sizes_must_fit_the_patch(tiny, tmp_path):
    with pytest.raises(ExportError, match=r"60x64.*multiples of the patch, 8"):
        export_onnx(tiny, tmp_path / "out", ExportOptions(sizes=((60, 64),)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("export", [export_onnx, export_tensorrt], ids=lambda export: export.__name__)
def test_a_model_in_another_type_is_refused(tmp_path, export):
    for types, reason in (({"text_dtype": "bf16"}, "with its texts in float32"), ({"dtype": "bf16"}, "in float32 on")):
        with pytest.raises(ExportError, match=reason):
            export(gem_fast.load("gem-tiny", **types), tmp_path / "out", ExportOptions())
    assert not list(tmp_path.iterdir())


def test_a_wrong_graph_is_found_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    true_attend = Layers.attend
    monkeypatch.setattr(
        Layers,
        "attend",
        lambda self, q, k, v, heads, scale, causal=False, bias=None: true_attend(self, q, k, v, heads, 0.9 * scale),
    )
    with pytest.raises(DisagreementError, match=r"5 of 11 .* differ from torch .* patch_features of image"):
        export_onnx(tiny, tmp_path / "out", ExportOptions(sizes=((48, 48),)))
    assert not list(tmp_path.iterdir())


def test_an_interrupted_export_keeps_the_earlier_one(tiny, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    export_onnx(tiny, folder, ExportOptions(sizes=((48, 48),), check=False))
    before = (folder / "manifest.json").read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "file_sha256", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(tiny, folder, ExportOptions(sizes=((64, 64),), check=False))
    assert (folder / "manifest.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["out"]
    monkeypatch.undo()
    export_onnx(tiny, folder, ExportOptions(sizes=((64, 64),), check=False))
    assert read_manifest(folder).files["image_encoder.onnx"].size == (64, 64)
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_with_other_files_is_left_alone(tiny, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ExportError, match="no earlier export"):
        export_onnx(tiny, tmp_path)
    assert os.listdir(tmp_path) == ["precious.txt"]


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "text_encoder.onnx"
    path.write_bytes((exported() / "text_encoder.onnx").read_bytes()[:1000])
    with pytest.raises(ExportError, match=r"text_encoder\.onnx is not a valid ONNX graph"):
        open_session(path)
    manifest = read_manifest(exported())
    with pytest.raises(ExportError, match="lacks image_encoder"):
        verify_files(tmp_path, manifest)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ExportError, match="damaged"):
        read_manifest(tmp_path)
    with pytest.raises(ExportError, match="no exported model"):
        read_manifest(tmp_path / "nowhere")


def test_missing_packages_name_the_extra(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"onnxruntime: pip install 'gem_fast\[export\]'"):
        export_onnx(tiny, tmp_path / "out")


class TestCommandLine:
    def run(self, *arguments):
        return CliRunner().invoke(app, ["export", *map(str, arguments)])

    def test_exports_and_prints_the_differences(self, tmp_path):
        result = self.run("--out", tmp_path / "out", "--size", "48", "--attention", "onnx")
        assert result.exit_code == 0, result.output
        lines = [line.split() for line in result.output.splitlines()]
        shown = [line for line in lines if line[:1] == ["patch_features"]]
        assert [line[1:4] for line in shown] == [
            ["48x48", "1", "sample"],
            ["48x48", "3", "noise"],
            ["48x48", "8", "samples"],
        ]
        assert all(line[-1] == "ok" for line in shown)
        assert read_manifest(tmp_path / "out").export.opset == 23

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--model", "no-such"], "no model is called 'no-such'"),
            (["--opset", "12"], "opset must be 18 to 24"),
            (
                ["--dtype", "float8"],
                "dtype must be one of float32, bfloat16",
            ),
            (["--size", "50"], "multiples of the patch"),
            (["--weights", "none.pt", "--model", "ViT-B-32"], "there is no file"),
        ],
        ids=str,
    )
    def test_errors_are_told_in_a_line(self, tmp_path, arguments, reason):
        result = self.run("--out", tmp_path / "out", *arguments)
        assert result.exit_code == 2
        assert reason in " ".join(result.output.split())
        assert not list(tmp_path.iterdir())
