"""The export for TensorRT: graphs that it takes, profiles and commands."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from gem_fast.export import ExportError, ExportOptions
from gem_fast.export.onnx_export import write_graphs
from gem_fast.export.tensorrt.build import Extent, input_shapes, trtexec_line
from gem_fast.export.tensorrt.support import published, unsupported
from gem_fast.export.tensorrt.tensorrt_export import export_tensorrt
from onnx import helper

import gem_fast
from gem_fast.runtime.folder import verify_files
from gem_fast.runtime.manifest import read_manifest
from tests.export.checked import fewest_labels, largest_error
from tests.towers.families import CONFIGS, make_model, word_tokenizer, write_folder

SIZES = ((32, 32), (32, 48))


@pytest.fixture(scope="module")
def model():
    return gem_fast.load("gem-tiny", gem_blocks=2, inverse_temperature=None)


@pytest.fixture(scope="module", params=["onnx", "plugin", "portable"])
def exported(request, model, tmp_path_factory):
    """What was returned, and the folder: one size, checked against torch under ONNX Runtime."""
    out = tmp_path_factory.mktemp("exported") / "out"
    options = ExportOptions(attention=request.param, sizes=SIZES[:1])
    return export_tensorrt(model, out, options, max_batch=4), out


def load(out, name="image_encoder"):
    return onnx.load(out / f"{name}.onnx")


def test_the_graphs_agree_with_torch_and_fit_the_published_operators(exported):
    """With the plugins too: ONNX Runtime computes them by functions of the same names."""
    written, out = exported
    assert largest_error(written.manifest) <= 2e-6
    assert fewest_labels(written.manifest) >= 0.9999
    for name in ("image_encoder", "text_encoder"):
        assert unsupported(load(out, name)) == []
        assert not load(out, name).functions
    assert not list(out.glob("*.check.onnx"))
    verify_files(out, read_manifest(out))


def test_attention_has_the_form_that_tensorrt_takes(exported):
    """Of the published restrictions: four dimensions, no cache, no softcap, no second output."""
    written, out = exported
    kinds = [node.op_type for node in load(out).graph.node]
    attention = written.manifest.export.attention
    assert ("Attention" in kinds) == (attention != "portable")
    assert (kinds.count("GemNormalize"), kinds.count("GemRefine")) == ((2, 2) if attention == "plugin" else (0, 0))
    inferred = onnx.shape_inference.infer_shapes(load(out, "text_encoder"), data_prop=True)
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in inferred.graph.value_info}
    for node in inferred.graph.node:
        if node.op_type == "Attention":
            assert [ranks[name] for name in node.input] == [4, 4, 4]
            assert {a.name for a in node.attribute} == {"scale", "is_causal"}
            assert len(node.output) == 1


def test_plugin_nodes_say_what_the_parser_asks_for(model, tmp_path):
    write_graphs(model, tmp_path, ExportOptions(attention="plugin", dtype="fp16", sizes=SIZES[:1]))
    nodes = [node for node in load(tmp_path).graph.node if node.domain == "gem_fast"]
    assert [node.op_type for node in nodes] == ["GemNormalize", "GemRefine", "GemAssign"] * 2
    for node in nodes:
        values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        found = {"plugin_namespace": b"gem_fast", "plugin_version": b"1", "aot": 1}
        assert values == found | {"heads": 3, "width": 64, "projections": 7}
    kinds = {v.name: v.type.tensor_type.elem_type for v in load(tmp_path).graph.value_info}
    assert all(kinds[node.output[0]] == onnx.TensorProto.FLOAT16 for node in nodes)


def test_without_tensorrt_it_says_what_to_install_and_leaves_the_commands(exported):
    written, out = exported
    if written.missing is None:
        pytest.skip("TensorRT is installed here")
    assert "pip install tensorrt" in written.missing
    assert written.engines == ()
    script = (out / "build_engines.sh").read_text()
    assert all(command in script for command in written.commands)
    image = written.commands[0]
    if written.manifest.export.attention == "plugin":
        assert image == "python -m gem_fast.export.tensorrt . image_encoder"
    else:
        assert image.startswith("trtexec --onnx=image_encoder.onnx --saveEngine=image_encoder.engine ")
        assert "--minShapes=pixels:1x3x32x32 --optShapes=pixels:4x3x32x32 --maxShapes=pixels:4x3x32x32" in image
    assert "--minShapes=token_ids:1x1" in written.commands[1]


def test_several_sizes_share_an_engine_with_a_profile_each(model, tmp_path):
    written = export_tensorrt(model, tmp_path / "out", ExportOptions(attention="onnx", sizes=SIZES), max_batch=2)
    graph = load(tmp_path / "out")
    assert [d.dim_param for d in graph.graph.input[0].type.tensor_type.shape.dim] == ["batch", "", "height", "width"]
    assert not any(i.data_type == onnx.TensorProto.DOUBLE for i in graph.graph.initializer)
    assert unsupported(graph) == []
    assert largest_error(written.manifest) <= 2e-6  # positions are resampled in float32
    stored = json.loads((tmp_path / "out" / "tensorrt.json").read_text())["image_encoder"]
    assert [profile["width"]["usual"] for profile in stored] == [32, 48]
    if written.missing:
        assert "--profile=0 --minShapes=pixels:1x3x32x32" in written.commands[0]
        assert "--profile=1 --minShapes=pixels:1x3x32x48" in written.commands[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"attention": "ort"}, "attention for tensorrt must be one of onnx, plugin, portable, got 'ort'"),
        ({"attention": "onnx", "dynamic_size": True}, "name the sizes for tensorrt"),
        ({"attention": "onnx", "sizes": ((30, 32),)}, "size 30x32: both sides"),
        (
            {"attention": "onnx", "quantize": "int8"},
            "does not take image_encoder.onnx: .*MatMulInteger is not supported",
        ),
        ({"attention": "onnx", "with_preprocess": True}, "and image is UINT8"),
    ],
)
def test_options_that_do_not_fit(model, tmp_path, options, told):
    with pytest.raises(ExportError, match=told):
        export_tensorrt(model, tmp_path / "out", ExportOptions(**options))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("family", ["coca", "siglip", "mobileclip2"])
def test_the_text_encoder_takes_every_length_of_its_profile(family, tmp_path):
    config = CONFIGS[family]
    tokenizer = word_tokenizer() if config["text_cfg"].get("hf_tokenizer_name") else None
    model = gem_fast.load(str(write_folder(tmp_path / family, make_model(config), config, tokenizer)))
    export_tensorrt(model, tmp_path / "out", ExportOptions(attention="portable", check=False))
    (profile,) = json.loads((tmp_path / "out" / "tensorrt.json").read_text())["text_encoder"]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "text_encoder.onnx")
    assert profile["length"]["most"] == model.text.tokenizer.context_length
    for length in range(profile["length"]["least"], profile["length"]["most"] + 1):
        assert session.run(None, {"token_ids": np.ones((2, length), np.int64)})


def test_plugins_in_bfloat16_agree_with_torch(model, tmp_path):
    options = ExportOptions(attention="plugin", dtype="bf16", sizes=SIZES[:1])
    manifest = export_tensorrt(model, tmp_path / "out", options).manifest
    assert 2e-6 < largest_error(manifest) <= 1e-2
    assert fewest_labels(manifest) >= 0.95


def test_the_plugins_limits(tmp_path):
    other = gem_fast.load("gem-tiny", gem_blocks=1, normalize=False)
    with pytest.raises(ExportError, match="with normalize=False use attention onnx"):
        export_tensorrt(other, tmp_path / "out", ExportOptions(attention="plugin", sizes=SIZES[:1]))
    assert not any(tmp_path.iterdir())


def test_what_tensorrt_does_not_take_is_named(model, tmp_path):
    """ONNX Runtime's own operators, float64 and a loop of open length: why the head is not built."""
    table = published()
    assert (table["tensorrt"], table["opsets"], len(table["operators"])) == ("10.15", [9, 24], 158)
    write_graphs(model, tmp_path, ExportOptions(attention="ort", sizes=SIZES[:1]))
    assert unsupported(load(tmp_path)) == ["the operator com.microsoft::MultiHeadAttention is not supported"]
    wrong = unsupported(load(tmp_path, "labels"))
    assert any(line.startswith("Div takes FP32") and line.endswith("is FP64") for line in wrong)
    assert any(line.startswith("Loop must not scan") for line in wrong)
    new = onnx.helper.make_model(onnx.GraphProto(name="g"), opset_imports=[helper.make_opsetid("", 25)])
    assert unsupported(new) == ["opset 25 is not one of 9 to 24"]


def test_shapes_of_a_profile(model, tmp_path):
    write_graphs(model, tmp_path, ExportOptions(attention="tensorrt", sizes=SIZES[:1]))
    shapes = input_shapes(load(tmp_path), {"batch": Extent(1, 2, 8)})
    assert shapes == {"pixels": ((1, 3, 32, 32), (2, 3, 32, 32), (8, 3, 32, 32))}
    with pytest.raises(ValueError, match="says nothing of texts, length, dimensions of token_ids"):
        input_shapes(load(tmp_path, "text_encoder"), {"batch": Extent(1, 1, 1)})
    with pytest.raises(ValueError, match="must rise from 1"):
        Extent(2, 1, 3)
    line = trtexec_line("a b.onnx", "x.engine", [shapes])
    assert line.startswith("trtexec '--onnx=a b.onnx' --saveEngine=x.engine --timingCacheFile=timing.cache")
