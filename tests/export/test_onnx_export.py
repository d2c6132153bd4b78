"""Exports of small models: each attention, opset and type under ONNX Runtime against torch, and what goes wrong."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gem_fast.export import ExportError, ExportOptions, export_onnx
from gem_fast.export import onnx_export as module
from gem_fast.export.builder import GraphBuilder, Weights
from gem_fast.export.checking import FEATURE_BOUNDS, open_session, relative_error
from gem_fast.export.image_encoder import write_image_encoder
from gem_fast.export.layers import Layers
from gem_fast.export.manifest import files_of, read_manifest, verify_files
from gem_fast.export.options import OPSETS, parse_size
from gem_fast.export.preprocess import write_preprocessing
from PIL import Image
from typer.testing import CliRunner

import gem_fast
from gem_fast.cli import app

WAYS = [(a, o) for o in OPSETS for a in ("portable", "ort", "onnx") if a != "onnx" or o >= 23]


@pytest.fixture(scope="module")
def tiny():
    return gem_fast.load("gem-tiny")


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """gem-tiny exported for two sizes with both outputs, and its manifest."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_onnx(tiny, folder, ExportOptions(sizes=((64, 96), (48, 48)), original=True))
    return folder


def run_encoder(model, feed, size=None, original=False, opset=18, **layers):
    """The image encoder's outputs by name, through ONNX Runtime."""
    graph = GraphBuilder(opset)
    write_image_encoder(Layers(graph, **layers), model.vision, size, original=original)
    proto = graph.model("image_encoder", {})
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


def pixels(B, H, W):
    return torch.randn(B, 3, H, W, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("attention", "opset"), WAYS)
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_every_attention_and_opset_agrees_with_torch(tiny, attention, opset, dtype):
    image = pixels(2, 64, 48)
    ours = run_encoder(tiny, {"pixels": image.numpy()}, (64, 48), True, opset=opset, attention=attention, dtype=dtype)
    truth = tiny.features(image, original=True)
    assert relative_error(ours["patch_features"], truth.patches) <= FEATURE_BOUNDS[dtype]
    assert relative_error(ours["original_features"], truth.original_patches) <= FEATURE_BOUNDS[dtype]
    assert ours["patch_features"].dtype == np.float32


@pytest.mark.parametrize("attention", ["portable", "ort", "onnx"])
@pytest.mark.parametrize(
    "options",
    [
        {"inverse_temperature": None},
        {"iterations": 0, "projections": "v", "normalize": False, "inverse_temperature": 0.125},
        {"iterations": 2, "projections": "qk", "gem_blocks": 2},
        {"projections": "kv"},
        {"projections": "vq"},
    ],
    ids=str,
)
def test_options_of_gem(attention, options):
    model = gem_fast.load("gem-tiny", **options)
    image = pixels(3, 40, 64)
    ours = run_encoder(model, {"pixels": image.numpy()}, (40, 64), opset=23, attention=attention)
    assert relative_error(ours["patch_features"], model.features(image)) <= 2e-6


def test_another_tower(small_model):
    """Heads and patches of another shape, with the paper's adaptive temperature."""
    image = pixels(2, 96, 64)
    ours = run_encoder(small_model, {"pixels": image.numpy()}, (96, 64), attention="ort")
    assert relative_error(ours["patch_features"], small_model.features(image)) <= 2e-6


@pytest.mark.parametrize("attention", ["portable", "ort"])
def test_dynamic_size_resamples_positions_as_torch_does(tiny, attention):
    # Not one patch wide and several high: there torch's own antialiased resampling is wrong.
    for batch, height, width in [(1, 64, 64), (3, 40, 56), (8, 8, 120), (8, 120, 16), (1, 8, 8), (1, 200, 136)]:
        image = pixels(batch, height, width)
        ours = run_encoder(tiny, {"pixels": image.numpy()}, attention=attention)
        assert relative_error(ours["patch_features"], tiny.features(image)) <= 2e-6


def test_images_of_any_batch_size_do_not_mix(exported, tiny):
    session = open_session(exported / "image_encoder_48x48.onnx")
    image = pixels(8, 48, 48)
    together = session.run(["patch_features"], {"pixels": image.numpy()})[0]
    for count in (1, 3):
        alone = session.run(["patch_features"], {"pixels": image[:count].numpy()})[0]
        np.testing.assert_allclose(alone, together[:count], atol=1e-6)


def test_grids_share_their_weights(exported):
    manifest = read_manifest(exported)
    encoders = files_of(manifest, "image_encoder")
    assert set(encoders) == {"image_encoder_64x96.onnx", "image_encoder_48x48.onnx"}
    assert all(entry["external_data"] == ["image_encoder.weights"] for entry in encoders.values())
    assert all((exported / name).stat().st_size < 300_000 for name in encoders)
    assert (exported / "image_encoder.weights").stat().st_size < 14_000_000


def test_manifest_tells_what_a_runtime_needs(exported, tiny):
    manifest = read_manifest(exported)
    verify_files(exported, manifest)
    assert set(manifest["files"]) | {"manifest.json"} == set(os.listdir(exported))
    assert manifest["model"]["options"] == {
        "gem_blocks": 7,
        "iterations": 1,
        "inverse_temperature": 8.0,
        "projections": "qkv",
        "normalize": True,
    }
    assert manifest["image"]["mean"] == [0.5, 0.5, 0.5]
    assert manifest["text"]["context_length"] == 20
    assert manifest["check"]["patch_features"] < 2e-6
    encoder = manifest["files"]["image_encoder_64x96.onnx"]
    assert encoder["size"] == [64, 96]
    assert encoder["inputs"] == {"pixels": {"type": "float", "shape": ["batch", 3, 64, 96]}}
    assert encoder["outputs"]["original_features"] == {"type": "float", "shape": ["batch", 8, 12, 128]}
    stored = {p.key: p.value for p in onnx.load(str(exported / "text_encoder.onnx")).metadata_props}
    assert json.loads(stored["gem_fast"])["model"] == manifest["model"]


def test_int8_is_close_and_smaller(tiny):
    image = pixels(1, 64, 64)
    ours = run_encoder(tiny, {"pixels": image.numpy()}, (64, 64), attention="ort", quantize="int8")
    assert 1e-4 < relative_error(ours["patch_features"], tiny.features(image)) < 0.05


def test_bfloat16_is_checked_through_float32(tiny, tmp_path):
    manifest = export_onnx(tiny, tmp_path / "bf16", ExportOptions(dtype="bf16", sizes=((64, 64),)))
    assert 1e-4 < manifest["check"]["patch_features"] < FEATURE_BOUNDS["bf16"]
    kinds = {i.data_type for i in onnx.load(str(tmp_path / "bf16" / "image_encoder.onnx")).graph.initializer}
    assert onnx.TensorProto.BFLOAT16 in kinds


@pytest.mark.parametrize("shape", [(300, 451), (480, 640), (20, 33), (64, 48), (64, 100)], ids=str)
def test_preprocessing_is_pillows_but_for_single_steps(shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    graph = GraphBuilder(18)
    value = write_preprocessing(graph, (64, 48), (0.0, 0.0, 0.0), (1 / 255,) * 3)
    graph.output("values", value, onnx.TensorProto.FLOAT, ["batch", 3, 64, 48])
    session = onnxruntime.InferenceSession(graph.model("preprocess", {}).SerializeToString())
    ours = session.run(None, {"image": picture[None]})[0][0].transpose(1, 2, 0)
    columns_first = Image.fromarray(picture).resize((48, shape[0]), Image.Resampling.BICUBIC)
    theirs = np.asarray(columns_first.resize((48, 64), Image.Resampling.BICUBIC)).astype(np.float32)
    difference = np.abs(ours - theirs).round()
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_export_with_preprocessing(tiny, tmp_path):
    manifest = export_onnx(tiny, tmp_path / "all", ExportOptions(with_preprocess=True))
    entry = manifest["files"]["image_encoder.onnx"]
    assert entry["inputs"] == {"image": {"type": "uint8", "shape": ["batch", "image_height", "image_width", 3]}}
    assert manifest["check"]["labels"] > 0.999


def test_synonyms_count_with_their_largest(exported):
    session = open_session(exported / "cosines.onnx")
    features = torch.nn.functional.normalize(torch.randn(1, 3, 4, 128), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(4, 128), dim=-1)
    plain = np.einsum("bhwe,te->bthw", features.numpy(), texts.numpy())
    feed = {"patch_features": features.numpy(), "text_embeddings": texts.numpy()}
    grouped = session.run(None, {**feed, "synonyms": np.array([[0, 2], [3, 3], [1, 1]])})[0]
    np.testing.assert_allclose(grouped[0], [plain[0, [0, 2]].max(0), plain[0, 3], plain[0, 1]], atol=1e-6)
    np.testing.assert_allclose(session.run(None, feed)[0], plain, atol=1e-6)


def test_a_map_without_contrast_is_zero(exported):
    flat = np.full((1, 2, 3, 4), 0.3, np.float32)
    session = open_session(exported / "heatmaps.onnx")
    assert not session.run(None, {"cosines": flat, "output_size": np.array([9, 8])})[0].any()


def test_labels_hold_nothing_of_classes_times_pixels(exported):
    """3,000 classes at 512×512 would be 3.1 GB; the bound is a twentieth."""
    code = f"""
import numpy as np, onnxruntime as ort
def peak(): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) / 1024
options = ort.SessionOptions(); options.log_severity_level = 3; options.intra_op_num_threads = 1
session = ort.InferenceSession({str(exported / "labels.onnx")!r}, options)
cosines = np.random.default_rng(0).random((1, 3000, 8, 8), np.float32)
before = peak()
session.run(None, {{"cosines": cosines, "output_size": np.array([512, 512])}})
print(peak() - before)
"""
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown < 160


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"opset": 17}, "opset must be 18 to 24, got 17"),
        ({"opset": 99}, "18 to 24"),
        ({"opset": 22, "attention": "onnx"}, "needs opset 23"),
        ({"attention": "flash"}, "portable, onnx, ort"),
        ({"dtype": "float64"}, "fp32, fp16, bf16"),
        ({"quantize": "int4"}, "int8"),
        ({"quantize": "int8", "dtype": "fp16"}, "goes with dtype fp32"),
        ({"dynamic_size": True, "sizes": ((64, 64),)}, "leave out sizes"),
        ({"dynamic_size": True, "with_preprocess": True}, "leave out dynamic_size"),
        ({"sizes": ((64, 64), (64, 64))}, "each size may come once"),
    ],
    ids=str,
)
def test_wrong_options_are_named(options, reason):
    with pytest.raises(ExportError, match=reason):
        ExportOptions(**options)


@pytest.mark.parametrize("text", ["", "x", "64x", "4x4x4", "-8", "8.5"])
def test_wrong_sizes_are_named(text):
    with pytest.raises(ExportError, match="like 448 or 448x640"):
        parse_size(text)


def test_sizes_must_fit_the_patch(tiny, tmp_path):
    with pytest.raises(ExportError, match=r"60x64.*multiples of the patch, 8"):
        export_onnx(tiny, tmp_path / "out", ExportOptions(sizes=((60, 64),)))
    assert not list(tmp_path.iterdir())


def test_a_wrong_graph_is_found_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    true_attend = Layers.attend
    monkeypatch.setattr(
        Layers,
        "attend",
        lambda self, q, k, v, heads, scale, causal=False: true_attend(self, q, k, v, heads, 0.9 * scale),
    )
    with pytest.raises(ExportError, match="differ from torch"):
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
    assert read_manifest(folder)["files"]["image_encoder.onnx"]["size"] == [64, 64]
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_with_other_files_is_left_alone(tiny, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ExportError, match="no earlier export"):
        export_onnx(tiny, tmp_path)
    assert os.listdir(tmp_path) == ["precious.txt"]


def test_damaged_files_are_named(exported, tmp_path):
    path = tmp_path / "text_encoder.onnx"
    path.write_bytes((exported / "text_encoder.onnx").read_bytes()[:1000])
    with pytest.raises(ExportError, match=r"text_encoder\.onnx is not a valid ONNX graph"):
        open_session(path)
    manifest = read_manifest(exported)
    with pytest.raises(ExportError, match="lacks image_encoder"):
        verify_files(tmp_path, manifest)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ExportError, match="damaged"):
        read_manifest(tmp_path)
    with pytest.raises(ExportError, match="no exported model"):
        read_manifest(tmp_path / "nowhere")


def test_external_weights_are_aligned_and_equal(tmp_path):
    path = tmp_path / "all.weights"
    weights = Weights(path)
    values = {name: torch.randn(7, 5).to(kind) for name, kind in (("a", torch.float32), ("b", torch.bfloat16))}
    for name, value in values.items():
        entries = {e.key: e.value for e in weights.add(name, value).external_data}
        assert int(entries["offset"]) % 4096 == 0
        start, length = int(entries["offset"]), int(entries["length"])
        assert path.read_bytes()[start : start + length] == value.view(torch.uint8).numpy().tobytes()


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
        assert "patch_features: " in result.output
        assert read_manifest(tmp_path / "out")["export"]["opset"] == 23

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["--model", "no-such"], "no model is called 'no-such'"),
            (["--opset", "12"], "opset must be 18 to 24"),
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
