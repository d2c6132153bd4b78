"""The model repository for NVIDIA Triton Inference Server: configurations, graphs, and the ensemble that joins them."""

import importlib.util
import json
import re
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gem_fast.export import ExportError, ExportOptions, triton_server
from gem_fast.export.model_config import Serving, interface, model_config
from gem_fast.export.triton_server import export_triton_server
from google.protobuf import text_format
from onnx import TensorProto, helper

import gem_fast
from gem_fast.runtime.folder import verify_files
from gem_fast.runtime.manifest import read_manifest
from tests.export.triton_schema import read_configs, read_schema
from tests.towers.families import CONFIGS, make_model, write_folder

KINDS = {TensorProto.FLOAT: "TYPE_FP32", TensorProto.INT64: "TYPE_INT64", TensorProto.INT32: "TYPE_INT32"}
SIZE = (32, 40)


@pytest.fixture(scope="module")
def schema():
    package = importlib.util.find_spec("tritonclient")
    if package is None:
        pytest.skip("tritonclient, which carries the schema, is not installed")
    return read_schema(package.submodule_search_locations[0])


@pytest.fixture(scope="module")
def model():
    return gem_fast.load("gem-tiny", gem_blocks=1)


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """The folder of a repository for one size."""
    out = tmp_path_factory.mktemp("served") / "out"
    options = ExportOptions(sizes=(SIZE,), check=False)
    export_triton_server(model, out, options, Serving(max_batch_size=4, queue_delay=500, instances=2))
    return out


@pytest.fixture(scope="module")
def configs(served, schema):
    return read_configs(served / "models", schema)


def graph_of(served, name):
    return onnx.load(served / "models" / name / "1" / "model.onnx").graph


def test_what_lies_in_the_folder(served):
    assert sorted(p.name for p in served.iterdir()) == [
        "README.md",
        "manifest.json",
        "models",
        "request.json",
        "tokenizer.json",
    ]
    names = sorted(p.name for p in (served / "models").iterdir())
    assert names == ["gem", "gem_head", "gem_image_encoder", "gem_text_encoder"]
    assert (served / "models/gem/1/.keep").read_text()  # git and archives lose empty folders
    assert "--model-repository=/models" in (served / "README.md").read_text()
    assert "`gem` takes pixels normalised with mean [0.5, 0.5, 0.5]" in (served / "README.md").read_text()
    assert "np.zeros((1, 3, 32, 40), np.float32)" in (served / "README.md").read_text()
    assert "15 and 0.95 are the model's" in (served / "README.md").read_text()
    manifest = read_manifest(served)
    assert manifest.export.format == "triton-server"
    verify_files(served, manifest)


@pytest.mark.parametrize("name", ["gem_image_encoder", "gem_text_encoder", "gem_head"])
def test_a_configuration_says_what_its_graph_says(served, configs, schema, name):
    config, graph = configs[name], graph_of(served, name)
    assert config.name == name
    assert config.backend == "onnxruntime"
    assert config.instance_group[0].count == 2
    batched = config.max_batch_size > 0
    for declared, values in ((config.input, graph.input), (config.output, graph.output)):
        assert [each.name for each in declared] == [each.name for each in values]
        for each, value in zip(declared, values, strict=True):
            kind = value.type.tensor_type
            dims = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
            assert schema.DataType.Name(each.data_type) == KINDS[kind.elem_type]
            assert list(each.dims) == (dims[1:] if batched else dims or [1])
            assert not getattr(each, "optional", False)
            if batched:
                assert dims[0] == -1


def test_encoders_batch_and_the_head_does_not(configs):
    assert configs["gem_image_encoder"].max_batch_size == 4
    assert configs["gem_text_encoder"].max_batch_size == 256
    assert configs["gem_head"].max_batch_size == configs["gem"].max_batch_size == 0
    for name, batched in (("gem_image_encoder", True), ("gem_text_encoder", True), ("gem_head", False)):
        assert configs[name].HasField("dynamic_batching") == batched
    assert configs["gem_image_encoder"].dynamic_batching.max_queue_delay_microseconds == 500


def whole(config, tensor):
    """Dims with the batch; -1 goes with everything."""
    return ([-1] if config.max_batch_size else []) + list(tensor.dims)


def test_the_ensembles_maps_connect(configs):
    ensemble = configs["gem"]
    assert ensemble.platform == "ensemble"
    known = {each.name: (each.data_type, list(each.dims)) for each in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        config = configs[step.model_name]
        assert set(step.input_map) == {each.name for each in config.input}
        for each in config.input:
            kind, dims = known[step.input_map[each.name]]
            assert kind == each.data_type
            assert len(dims) == len(whole(config, each))
            assert all(a == b or -1 in (a, b) for a, b in zip(dims, whole(config, each), strict=True))
        outputs = {each.name: each for each in config.output}
        for name, tensor in step.output_map.items():
            assert tensor not in known
            known[tensor] = (outputs[name].data_type, whole(config, outputs[name]))
    for each in ensemble.output:
        assert known[each.name] == (each.data_type, list(each.dims))


def test_the_ensemble_gives_the_engines_labels(served, configs, model):
    """Its steps run one after another under ONNX Runtime, with the server's rules for the names."""
    pixels = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    words = ["a photo of a cat.", "a photo of a dog.", "a photo of a car."]
    tensors = {
        "pixels": pixels.numpy(),
        "token_ids": model.text.tokenizer(words).numpy(),
        "output_size": np.array([61, 53]),
        "synonyms": np.array([[-1]]),
        "logit_scale": np.array([model.defaults.logit_scale], np.float32),
        "threshold": np.array([0.0], np.float32),
    }
    for step in configs["gem"].ensemble_scheduling.step:
        session = onnxruntime.InferenceSession(served / "models" / step.model_name / "1" / "model.onnx")
        scalars = {each.name for each in session.get_inputs() if not each.shape}
        feed = {name: tensors[tensor] for name, tensor in step.input_map.items()}
        feed = {name: value.reshape(()) if name in scalars else value for name, value in feed.items()}
        names = list(step.output_map)
        tensors |= dict(zip((step.output_map[n] for n in names), session.run(names, feed), strict=True))
    patches = model.features(pixels)
    embeddings = model.encode_text(["cat", "dog", "car"])
    cosines = torch.einsum("bhwe,te->bthw", patches, embeddings)
    assert np.abs(tensors["cosines"] - cosines.numpy()).max() < 1e-5
    for i in range(2):
        labels = gem_fast.kernels.decode_labels(cosines[i], (61, 53), logit_scale=model.defaults.logit_scale)[0]
        assert (tensors["labels"][i] == labels.numpy()).mean() > 0.999


def test_each_size_gets_an_encoder_and_an_ensemble_over_shared_weights(model, schema, tmp_path):
    export_triton_server(model, tmp_path / "out", ExportOptions(sizes=((32, 32), (32, 48)), check=False))
    models = tmp_path / "out" / "models"
    assert {"gem_32x32", "gem_32x48", "gem_image_encoder_32x32"} <= {p.name for p in models.iterdir()}
    config = text_format.Parse((models / "gem_32x48/config.pbtxt").read_text(), schema.ModelConfig())
    assert config.ensemble_scheduling.step[0].model_name == "gem_image_encoder_32x48"
    assert list(config.input[0].dims) == [-1, 3, 32, 48]
    encoders = [models / f"gem_image_encoder_{size}" / "1" for size in ("32x32", "32x48")]
    for folder in encoders:
        onnxruntime.InferenceSession(folder / "model.onnx")
    assert encoders[0].joinpath("image_encoder.weights").samefile(encoders[1] / "image_encoder.weights")
    verify_files(tmp_path / "out", read_manifest(tmp_path / "out"))


def test_a_readme_of_several_sizes_speaks_of_models_that_are_there(model, tmp_path):
    export_triton_server(model, tmp_path / "out", ExportOptions(sizes=((32, 32), (32, 48)), check=False))
    text = (tmp_path / "out" / "README.md").read_text()
    assert "`gem_32x32`, `gem_32x48` take" in text
    assert "`gem`" not in text
    assert "one file with a name in each of their folders" in text
    named = set(re.findall(r"`(gem\w*)`", text))
    assert named == {path.name for path in (tmp_path / "out" / "models").iterdir()}


def test_the_readmes_request_is_served(served):
    """By the graph that the server would run, with the shapes and types of the request."""
    text = (served / "README.md").read_text()
    assert "release 24.04 or newer" in text
    assert "models/gem_text_encoder/infer" in text
    (given,) = json.loads((served / "request.json").read_text())["inputs"]
    assert given["datatype"] == "INT64"
    session = onnxruntime.InferenceSession(served / "models" / "gem_text_encoder" / "1" / "model.onnx")
    ids = np.array(given["data"]).reshape(given["shape"])
    assert session.run(None, {given["name"]: ids})[0].shape == (1, 128)


def test_encoders_warm_up(configs):
    for name, tensor, dims in (("image", "pixels", [3, *SIZE]), ("text", "token_ids", [20])):
        (sample,) = configs[f"gem_{name}_encoder"].model_warmup
        assert list(sample.inputs[tensor].dims) == dims
        assert sample.inputs[tensor].zero_data
        assert sample.batch_size == 1
    assert not configs["gem_head"].model_warmup


@pytest.mark.parametrize("name", ["a size that is no multiple of the patch", "texts that are filled up"])
def test_graphs_of_any_size_run_on_what_they_warm_up_with_and_what_the_guide_asks(name, model, schema, tmp_path):
    if name == "texts that are filled up":
        model = gem_fast.load(str(write_folder(tmp_path / "coca", make_model(CONFIGS["coca"]), CONFIGS["coca"])))
    model = replace(model, defaults=replace(model.defaults, size=52))
    export_triton_server(model, tmp_path / "out", ExportOptions(dynamic_size=True, check=False))
    configs = read_configs(tmp_path / "out" / "models", schema)
    (request,) = json.loads((tmp_path / "out" / "request.json").read_text())["inputs"]
    shown = re.search(r"np\.zeros\(\((.*?)\)", (tmp_path / "out" / "README.md").read_text())[1]
    asked = {"pixels": [int(each) for each in shown.split(",")], "token_ids": request["shape"]}
    for kind, tensor, type in (("image", "pixels", np.float32), ("text", "token_ids", np.int64)):
        (sample,) = configs[f"gem_{kind}_encoder"].model_warmup
        path = tmp_path / "out" / "models" / f"gem_{kind}_encoder" / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(path)
        for shape in ([1, *sample.inputs[tensor].dims], asked[tensor]):
            assert session.run(None, {tensor: np.zeros(shape, type)})


def test_preprocessing_in_the_graph_is_served_as_uint8_images(model, schema, tmp_path):
    options = ExportOptions(sizes=(SIZE,), with_preprocess=True, check=False)
    export_triton_server(model, tmp_path / "out", options)
    for name, dims in (("gem_image_encoder", [-1, -1, 3]), ("gem", [-1, -1, -1, 3])):
        text = (tmp_path / "out" / "models" / name / "config.pbtxt").read_text()
        image = text_format.Parse(text, schema.ModelConfig()).input[0]
        assert (image.name, schema.DataType.Name(image.data_type), list(image.dims)) == ("image", "TYPE_UINT8", dims)
        if name != "gem":
            (sample,) = text_format.Parse(text, schema.ModelConfig()).model_warmup
            assert list(sample.inputs["image"].dims) == [*SIZE, 3]
    assert "`gem` takes uint8 images" in (tmp_path / "out" / "README.md").read_text()
    assert "np.zeros((1, 480, 640, 3), np.uint8)" in (tmp_path / "out" / "README.md").read_text()


def test_a_graph_whose_first_dimensions_differ_has_no_batch():
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [d, 2]) for n, d in (("x", "a"), ("y", "b"))]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", info[:1], info[1:])
    found = interface(helper.make_model(graph))
    assert not found.batched
    assert "max_batch_size: 0" in model_config("m", found, Serving(), 8)
    assert "dims: [ -1, 2 ]" in model_config("m", found, Serving(), 8)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"max_batch_size": 0}, "max_batch_size must be from 1 to 2,147,483,647, got 0"),
        ({"instances": 0}, "instances must be"),
        ({"instances": 2**31}, "instances must be from 1 to 2,147,483,647, got 2147483648"),  # no int32
        ({"queue_delay": 10**20}, "queue_delay must be from 0 to 2,147,483,647 microseconds, got 1"),
        ({"queue_delay": -1}, "queue_delay must be from 0 to"),
        ({"device": "tpu"}, "device must be auto, cpu or gpu, got 'tpu'"),
    ],
)
def test_wrong_serving_options(wrong, told):
    with pytest.raises(ValueError, match=told):
        Serving(**wrong)


def test_the_plugin_is_refused(model, tmp_path):
    with pytest.raises(ExportError, match="plugin runs in TensorRT only"):
        export_triton_server(model, tmp_path / "out", ExportOptions(attention="plugin"))


def test_nothing_is_left_of_a_failure_and_foreign_folders_stay(model, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ExportError, match="mine exists and is no earlier export"):
        export_triton_server(model, tmp_path / "mine", ExportOptions(check=False))
    monkeypatch.setattr(triton_server, "_ensemble", fail)
    with pytest.raises(OSError, match="disk full"):
        export_triton_server(model, tmp_path / "out", ExportOptions(sizes=(SIZE,), check=False))
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
