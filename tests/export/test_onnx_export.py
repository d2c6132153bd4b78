"""Exported folders: what the files hold and share, what the manifest tells, and the head's graphs."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import onnx
import pytest
import torch
from gem_fast.export import ExportOptions, export_onnx
from gem_fast.export import onnx_export as module
from gem_fast.export.builder import GraphBuilder, Weights
from gem_fast.export.checked_session import open_session

import gem_fast
from gem_fast.runtime.folder import verify_files
from gem_fast.runtime.interface import TensorFacts
from gem_fast.runtime.manifest import read_manifest
from tests.export.checked import fewest_labels, largest_error, packed


@pytest.fixture(scope="module")
def tiny():
    return gem_fast.load("gem-tiny")


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """gem-tiny exported for two sizes with both outputs, and its manifest."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export_onnx(tiny, folder, ExportOptions(sizes=((64, 96), (48, 48)), original=True))
    return folder


def test_the_models_weights_lie_as_before(exported, tiny, tmp_path):
    """Packed, but for one that someone asked for, and may write to."""
    model = gem_fast.load("gem-tiny")
    assert packed(tiny) == packed(model)
    weight = model.vision.blocks[0].out.weight
    export_onnx(model, tmp_path / "out", ExportOptions(sizes=((48, 48),), check=False))
    assert model.vision.blocks[0].out.weight is weight
    assert packed(model).count(False) == packed(tiny).count(False) + packed(tiny)[1]


def test_images_of_any_batch_size_do_not_mix(exported, tiny):
    session = open_session(exported / "image_encoder_48x48.onnx")
    image = torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    together = session.run(["patch_features"], {"pixels": image.numpy()})[0]
    for count in (1, 3):
        alone = session.run(["patch_features"], {"pixels": image[:count].numpy()})[0]
        np.testing.assert_allclose(alone, together[:count], atol=1e-6)


def test_grids_share_their_weights(exported):
    manifest = read_manifest(exported)
    encoders = manifest.of_role("image_encoder")
    assert set(encoders) == {"image_encoder_64x96.onnx", "image_encoder_48x48.onnx"}
    assert all(entry.external_data == ("image_encoder.weights",) for entry in encoders.values())
    assert all((exported / name).stat().st_size < 300_000 for name in encoders)
    assert (exported / "image_encoder.weights").stat().st_size < 14_000_000


def test_manifest_tells_what_a_runtime_needs(exported, tiny):
    manifest = read_manifest(exported)
    verify_files(exported, manifest)
    assert set(manifest.files) | {"manifest.json"} == set(os.listdir(exported))
    assert manifest.model.options == {
        "name": "gem",
        "blocks": 7,
        "beside": True,
        "attention": "qq+kk+vv",
        "average": True,
        "iterations": 1,
        "normalize": True,
        "scale": 8.0,
        "residual": True,
        "mlp": False,
        "distance": None,
    }
    assert manifest.image.mean == (0.5, 0.5, 0.5)
    assert manifest.text.context_length == 20
    assert (manifest.text.start_token, manifest.text.end_token, manifest.text.padding_token) == (49406, 49407, 0)
    assert largest_error(manifest) < 2e-6
    encoder = manifest.files["image_encoder_64x96.onnx"]
    assert encoder.size == (64, 96)
    assert encoder.inputs == {"pixels": TensorFacts("float", ("batch", 3, 64, 96))}
    assert encoder.outputs["original_features"] == TensorFacts("float", ("batch", 8, 12, 128))
    stored = {p.key: p.value for p in onnx.load(str(exported / "text_encoder.onnx")).metadata_props}
    assert json.loads(stored["gem_fast"])["model"] == asdict(manifest.model)


def test_bfloat16_is_checked_through_float32(tiny, tmp_path):
    manifest = export_onnx(tiny, tmp_path / "bf16", ExportOptions(dtype="bf16", sizes=((64, 64),)))
    assert 1e-4 < largest_error(manifest) < 1e-2
    kinds = {i.data_type for i in onnx.load(str(tmp_path / "bf16" / "image_encoder.onnx")).graph.initializer}
    assert onnx.TensorProto.BFLOAT16 in kinds


def test_export_with_preprocessing(tiny, tmp_path):
    manifest = export_onnx(tiny, tmp_path / "all", ExportOptions(with_preprocess=True))
    entry = manifest.files["image_encoder.onnx"]
    assert entry.inputs == {"image": TensorFacts("uint8", ("batch", "image_height", "image_width", 3))}
    assert fewest_labels(manifest) > 0.999


def test_synonyms_count_with_their_largest(exported):
    session = open_session(exported / "cosines.onnx")
    features = torch.nn.functional.normalize(torch.randn(1, 3, 4, 128), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(4, 128), dim=-1)
    plain = np.einsum("bhwe,te->bthw", features.numpy(), texts.numpy())
    feed = {"patch_features": features.numpy(), "text_embeddings": texts.numpy()}
    grouped = session.run(None, {**feed, "synonyms": np.array([[0, 2], [3, 3], [1, 1]])})[0]
    np.testing.assert_allclose(grouped[0], [plain[0, [0, 2]].max(0), plain[0, 3], plain[0, 1]], atol=1e-6)
    np.testing.assert_allclose(session.run(None, {**feed, "synonyms": np.array([[-1]])})[0], plain, atol=1e-6)


def test_a_text_of_any_length_is_served_by_what_the_graph_says(exported, tiny):
    """Ids of the tokenizer made by hand: ended, padded and cut by the metadata alone."""
    session = open_session(exported / "text_encoder.onnx")
    text = json.loads(session.get_modelmeta().custom_metadata_map["gem_fast"])["text"]
    length, end, padding = (text[name] for name in ("context_length", "end_token", "padding_token"))
    assert text["cutting"] == "the first context_length - 1 ids, then end_token"
    rows = []
    for words in ("a photo of a cat.", "a rather long text " * 30):
        ids = [text["start_token"], *tiny.text.tokenizer.encode(words), end]
        ids = ids if len(ids) <= length else [*ids[: length - 1], end]
        rows.append(ids + [padding] * (length - len(ids)))
    assert rows == tiny.text.tokenizer(["a photo of a cat.", "a rather long text " * 30]).tolist()


def test_no_input_has_a_default(exported):
    """Most runtimes know no inputs that may be left out, and tools drop them."""
    for path in sorted(exported.glob("*.onnx")):
        graph = onnx.load(path, load_external_data=False).graph
        assert not {each.name for each in graph.input} & {each.name for each in graph.initializer}, path.name
    head = {each.name for each in onnx.load(exported / "head.onnx").graph.input}
    assert {"synonyms", "logit_scale", "threshold"} < head


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
settings = {{"logit_scale": np.array(100, np.float32), "threshold": np.array(0.5, np.float32)}}
session.run(None, {{"cosines": cosines, "output_size": np.array([512, 512]), **settings}})
print(peak() - before)
"""
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown < 160


@pytest.mark.parametrize(("opset", "least"), [(18, 8), (19, 9), (21, 10), (23, 11), (24, 12)])
def test_a_graph_asks_for_no_newer_format_than_its_opset(opset, least):
    """The first release of ONNX with the opset reads it; a runtime refuses what is newer than it knows."""
    graph = GraphBuilder(opset)
    graph.output("y", graph.input("x", onnx.TensorProto.FLOAT, [1]), onnx.TensorProto.FLOAT, [1])
    assert graph.model("g", {}).ir_version == least


@pytest.mark.parametrize("dtype", ["fp32", "bfloat16"])
def test_weights_above_the_limit_lie_beside_the_graphs(tiny, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(module, "_INLINE_LIMIT", 1_000_000)
    manifest = export_onnx(tiny, tmp_path / "out", ExportOptions(sizes=((48, 48),), dtype=dtype))
    for name in ("image_encoder", "text_encoder"):
        assert manifest.files[f"{name}.onnx"].external_data == (f"{name}.weights",)
        assert (tmp_path / "out" / f"{name}.onnx").stat().st_size < 300_000
    assert set(manifest.files) | {"manifest.json"} == set(os.listdir(tmp_path / "out"))
    assert (largest_error(manifest) <= 2e-6) == (dtype == "fp32")
    assert manifest.export.dtype == {"fp32": "float32"}.get(dtype, dtype)


def test_external_weights_are_aligned_and_equal(tmp_path):
    path = tmp_path / "all.weights"
    weights = Weights(path)
    values = {name: torch.randn(7, 5).to(kind) for name, kind in (("a", torch.float32), ("b", torch.bfloat16))}
    for name, value in values.items():
        entries = {e.key: e.value for e in weights.add(name, value).external_data}
        assert int(entries["offset"]) % 4096 == 0
        start, length = int(entries["offset"]), int(entries["length"])
        assert path.read_bytes()[start : start + length] == value.view(torch.uint8).numpy().tobytes()
