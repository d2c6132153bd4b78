"""What the runtime says when something is wrong, and which providers and options ONNX Runtime is given."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from gem_fast.export import ExportError, ExportOptions, export_onnx

import gem_fast
from gem_fast.runtime import GemRuntime, RuntimeOptions
from gem_fast.runtime.folder import file_sha256
from gem_fast.runtime.graph import Graph
from tests.runtime.runtime_exports import exported

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def copy(tmp_path):
    """A copy of the exported folder, to damage."""
    return shutil.copytree(exported(), tmp_path / "copy")


@pytest.fixture
def nvidia(monkeypatch):
    """As if onnxruntime-gpu were installed, as far as it says what it has."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])


@pytest.fixture
def openvino(monkeypatch):
    """As if onnxruntime-openvino were installed."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["OpenVINOExecutionProvider", CPU])


def edit_manifest(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


class TestFolder:
    def test_missing(self, tmp_path):
        with pytest.raises(ExportError, match=r"nowhere is no exported model: manifest\.json can't be read"):
            GemRuntime(tmp_path / "nowhere")
        with pytest.raises(ExportError, match="is no exported model"):
            GemRuntime(tmp_path)

    def test_its_graphs_are_found_when_the_process_goes_elsewhere(self, tmp_path, picture, monkeypatch):
        monkeypatch.chdir(exported().parent)
        model = GemRuntime(exported().name, threads=1)
        monkeypatch.chdir(tmp_path)
        assert model.segment(picture(), ["cat", "dog"]).labels.size
        with pytest.raises(ExportError, match=r"^nowhere is no exported model"):
            GemRuntime("nowhere")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"format": "other"}', b"\xff\xfe"], ids=repr)
    def test_a_manifest_of_something_else(self, copy, content):
        (copy / "manifest.json").write_bytes(content)
        with pytest.raises(ExportError, match=r"manifest\.json"):
            GemRuntime(copy)

    def test_another_format(self, copy):
        edit_manifest(copy, lambda manifest: manifest.update(format_version=99))
        with pytest.raises(ExportError, match=r"version 99, this gem_fast reads 3 and 4; export the model again"):
            GemRuntime(copy)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda m: m.pop("image"), r"damaged: image is missing"),
            (lambda m: m["image"].pop("mean"), r"damaged: image\.mean is missing"),
            (
                lambda m: m["text"].update(context_length="many"),
                r"text\.context_length must be a whole number, got .many",
            ),
            (lambda m: m.update(defaults=None), "damaged: defaults must be an object, got null"),
            (lambda m: m.update(files=[]), "damaged: files must be an object, got a list of 0"),
            (lambda m: m["files"].pop("labels.onnx"), "names no file for labels"),
            (lambda m: m["files"].pop("image_encoder.onnx"), "names no file for image_encoder"),
        ],
        ids=["image", "mean", "context", "defaults", "files", "labels", "image-encoder"],
    )
    def test_a_damaged_manifest(self, copy, change, reason):
        edit_manifest(copy, change)
        with pytest.raises(ExportError, match=rf"manifest\.json.*{reason}"):
            GemRuntime(copy)

    @pytest.mark.parametrize("verify", [True, False])
    @pytest.mark.parametrize("name", ["image_encoder.onnx", "tokenizer.json"])
    def test_a_missing_file(self, copy, name, verify):
        (copy / name).unlink()
        with pytest.raises(ExportError, match=rf"lacks {name}"):
            GemRuntime(copy, verify=verify)

    def test_a_changed_file(self, copy):
        path = copy / "text_encoder.onnx"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(ExportError, match=r"text_encoder\.onnx is damaged: it is not the file that was exported"):
            GemRuntime(copy)
        GemRuntime(copy, verify=False)


class TestGraphs:
    @pytest.mark.parametrize("cut", [0, 100, 1_000_000], ids=["empty", "start", "cut"])
    def test_a_damaged_graph(self, copy, picture, cut):
        path = copy / "image_encoder.onnx"
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ExportError, match=r"image_encoder\.onnx can't be loaded: "):
            GemRuntime(copy, verify=False).segment(picture(), "cat")

    @pytest.mark.parametrize(
        ("name", "foreign", "reason"),
        [
            ("image_encoder.onnx", "cosines.onnx", r"inputs\.pixels is missing; it must be float \[batch, 3, 96, 96\]"),
            (
                "text_encoder.onnx",
                "image_encoder.onnx",
                r"inputs\.token_ids is missing; it must be int64 \[texts, length",
            ),
            (
                "cosines.onnx",
                "head.onnx",
                r"inputs\.output_size is unknown; known are patch_features, text_embeddings, s",
            ),
        ],
    )
    def test_a_foreign_graph(self, copy, picture, name, foreign, reason):
        (copy / name).write_bytes((copy / foreign).read_bytes())
        with pytest.raises(ExportError, match=rf"{name} is not the graph that the manifest speaks of: {reason}"):
            GemRuntime(copy, verify=False).segment(picture(), "cat")

    @pytest.mark.parametrize("name", ["image_encoder.onnx", "text_encoder.onnx", "cosines.onnx"])
    def test_another_models_graph_of_the_same_shape(self, copy, picture, name):
        """Of other weights, with the hash put right in the manifest."""
        other = gem_fast.load("gem-tiny")
        other.vision.class_embedding.data += 1
        export_onnx(other, copy.parent / "other", ExportOptions(check=False))
        (copy / name).write_bytes((copy.parent / "other" / name).read_bytes())
        edit_manifest(copy, lambda m: m["files"][name].update(sha256=file_sha256(copy / name)))
        reason = r"metadata\.model\.weights_sha256 is another than the manifest's"
        with pytest.raises(ExportError, match=rf"{name} is not the graph that the manifest speaks of: {reason}"):
            GemRuntime(copy).segment(picture(), "cat")

    def test_a_graph_for_another_size(self, copy, picture):
        name = "image_encoder.onnx"
        (copy / name).write_bytes((exported((64, 64)) / name).read_bytes())
        edit_manifest(copy, lambda m: m["files"][name].update(sha256=file_sha256(copy / name)))
        reason = r"inputs\.pixels must be float \[batch, 3, 96, 96\], got float \[batch, 3, 64, 64\]"
        with pytest.raises(ExportError, match=rf"{name} is not the graph that the manifest speaks of: {reason}"):
            GemRuntime(copy).segment(picture(), "cat")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "metadata.model must be an object, got null"),
            ("{", "Expecting property name"),
            ("[" * 100_000, "nested too deeply"),
            ('{"model": {"name": "x"}}', "metadata.model.source is missing"),
        ],
        ids=["none", "broken", "deep", "few"],
    )
    def test_a_graph_without_facts_of_its_model(self, copy, picture, content, reason):
        graph = onnx.load(copy / "cosines.onnx")
        del graph.metadata_props[:]
        if content is not None:
            onnx.helper.set_model_props(graph, {"gem_fast": content})
        onnx.save(graph, copy / "cosines.onnx")
        with pytest.raises(ExportError, match=rf"cosines\.onnx is not the graph .*{reason}"):
            GemRuntime(copy, verify=False).segment(picture(), "cat")

    @pytest.mark.parametrize("content", ["{}", "[" * 100_000, '{"model": ' * 100_000], ids=["other", "list", "object"])
    def test_a_damaged_tokenizer(self, copy, picture, content):
        (copy / "tokenizer.json").write_text(content)
        with pytest.raises(ExportError, match=r"tokenizer\.json can't be read as a tokenizer"):
            GemRuntime(copy, verify=False).segment(picture(), "cat")

    @pytest.mark.parametrize(
        "pixels",
        [np.zeros((1, 3, 95, 96), np.float32), np.zeros((1, 3, 96, 96)), np.zeros((3, 96, 96), np.float32)],
        ids=["size", "dtype", "rank"],
    )
    def test_a_wrong_size_or_type_at_run_time(self, pixels):
        encoder = GemRuntime(exported(), threads=1).image_encoder((96, 96))
        with pytest.raises(RuntimeError, match=r"^image_encoder\.onnx: "):
            encoder.run({"pixels": pixels}, "patch_features")


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (
                {"provider": "cuda"},
                r"provider 'cuda' is not in this onnxruntime; available here: .*cpu.*onnxruntime-gpu",
            ),
            ({"provider": "tensorrt"}, "onnxruntime-gpu"),
            ({"provider": "directml"}, "onnxruntime-directml"),
            ({"provider": "gpu"}, r"provider 'gpu' is not in this onnxruntime; available here: .*cpu$"),
            ({"threads": 0}, "threads must be from 1 to 1,024, or None"),
            ({"threads": 10**11}, "threads must be from 1 to 1,024, or None for one a physical core, got 1"),
            ({"max_batch": 0}, "max_batch must be 1 or more"),
            ({"optimization": "most"}, "optimization must be one of all, extended, basic, none, got 'most'"),
            ({"thread": 2}, r"unknown options \['thread'\]; known are provider, .*threads"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_wrong_ones_say_what_is_right(self, options, reason):
        with pytest.raises(ExportError, match=reason):
            GemRuntime(exported(), **options)

    def test_the_cache_is_a_file(self, tmp_path):
        (tmp_path / "cache").write_text("")
        with pytest.raises(NotADirectoryError, match="cache is a file"):
            RuntimeOptions(cache=tmp_path / "cache")

    def test_the_cache_stays_where_it_was_when_the_process_goes_elsewhere(self, nvidia, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        options = RuntimeOptions(provider="tensorrt", cache="cache")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        assert options.providers({})[0][1]["trt_engine_cache_path"] == str(tmp_path / "cache")

    def test_what_sessions_are_given(self):
        usual = RuntimeOptions().session_options()
        assert (usual.intra_op_num_threads, usual.enable_cpu_mem_arena) == (0, True)
        assert usual.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        other = RuntimeOptions(threads=3, arena=False, prepacking=False, optimization="basic").session_options()
        assert (other.intra_op_num_threads, other.inter_op_num_threads, other.enable_cpu_mem_arena) == (3, 1, False)
        assert other.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        assert other.get_session_config_entry("session.disable_prepacking") == "1"

    @pytest.mark.parametrize("options", [{"arena": False, "prepacking": False}, {"optimization": "none"}], ids=str)
    def test_they_change_no_label(self, picture, options):
        one, other = (GemRuntime(exported(), threads=1, **each) for each in ({}, options))
        assert np.array_equal(*(m.segment(picture(), ["cat", "dog"], threshold=0).labels for m in (one, other)))


class TestProviders:
    def test_the_host_alone(self):
        assert RuntimeOptions().providers({"pixels": (None, 3, 96, 96)}) == [(CPU, {})]

    def test_any_other_has_the_host_behind_it(self, monkeypatch):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CoreMLExecutionProvider", CPU])
        options = RuntimeOptions(provider="coreml", provider_options={"ModelFormat": "MLProgram"})
        assert options.providers() == [("CoreMLExecutionProvider", {"ModelFormat": "MLProgram"}), (CPU, {})]

    @pytest.mark.parametrize(
        ("chosen", "given"),
        [
            ({}, {"device_type": "CPU", "precision": "FP32"}),
            ({"precision": "accuracy", "threads": 3}, {"precision": "ACCURACY", "num_of_threads": 3}),
            (
                {"provider_options": {"device_type": "GPU", "precision": "FP16"}},
                {"device_type": "GPU", "precision": "FP16"},
            ),
        ],
        ids=str,
    )
    def test_openvino_computes_in_float32_unless_asked(self, openvino, chosen, given):
        (name, settings), cpu = RuntimeOptions(provider="openvino", **chosen).providers()
        assert (name, cpu) == ("OpenVINOExecutionProvider", (CPU, {}))
        assert settings == {"device_type": "CPU"} | given

    def test_a_precision_is_openvinos(self, openvino):
        with pytest.raises(ExportError, match="precision is OpenVINO's, and the provider is cpu: leave it out"):
            RuntimeOptions(precision="float32")
        with pytest.raises(ExportError, match="precision must be one of float32, float16, accuracy, got 'FP32'"):
            RuntimeOptions(provider="openvino", precision="FP32")

    def test_cuda_keeps_float32(self, nvidia):
        (name, settings), cpu = RuntimeOptions(
            provider="cuda", device_id=1, provider_options={"gpu_mem_limit": 1 << 30, "use_tf32": 1}
        ).providers()
        assert (name, cpu) == (CUDA, (CPU, {}))
        assert settings["device_id"] == 1
        assert settings["gpu_mem_limit"] == 1 << 30
        assert settings["use_tf32"] == 1
        assert RuntimeOptions(provider="cuda").providers()[0][1]["use_tf32"] == 0

    def test_tensorrt_has_profiles_and_caches(self, nvidia, tmp_path):
        options = RuntimeOptions(provider="tensorrt", max_batch=4, cache=tmp_path / "new" / "cache")
        (name, settings), cuda, cpu = options.providers({"pixels": (None, 3, 96, 128)})
        assert (name, cuda[0], cpu) == (TENSORRT, CUDA, (CPU, {}))
        assert settings["trt_profile_min_shapes"] == "pixels:1x3x96x128"
        assert settings["trt_profile_opt_shapes"] == settings["trt_profile_max_shapes"] == "pixels:4x3x96x128"
        for kind in ("engine", "timing"):
            assert settings[f"trt_{kind}_cache_enable"] is True
            assert settings[f"trt_{kind}_cache_path"] == str(tmp_path / "new" / "cache")
        assert (tmp_path / "new" / "cache").is_dir()
        assert [each for each, _ in options.providers()] == [CUDA, CPU]  # graphs that need no engine
        without = RuntimeOptions(provider=TENSORRT).providers({})[0][1]
        assert not [key for key in without if "cache" in key or "profile" in key]

    @pytest.mark.filterwarnings("ignore:Specified provider")
    @pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
    def test_one_that_does_not_start_is_an_error(self, nvidia, picture, provider):
        with pytest.raises(ExportError, match=r"could not be started.* this session would run on CPUExecutionProvider"):
            GemRuntime(exported(), provider=provider).segment(picture(), "cat")

    def test_a_batch_beyond_the_engines_is_refused(self, picture):
        model = GemRuntime(exported(), threads=1)
        model.image_encoder((96, 96)).limit = 2  # as TensorRT's profile sets it
        assert len(model.segment([picture()] * 3, "cat", batch_size=2)) == 3
        with pytest.raises(ValueError, match="batch_size must be at most the max_batch of the runtime, 2"):
            model.segment([picture()] * 3, "cat", batch_size=3)


class TestOnAGpu:
    """Graphs and what they are given where a GPU would run them."""

    @pytest.fixture
    def bound(self, nvidia, monkeypatch):
        """Where outputs are bound by sessions that compute nothing."""
        bound = []
        binding = SimpleNamespace(bind_output=lambda *where: bound.append(where), get_outputs=list)
        session = dict.fromkeys(("get_inputs", "get_outputs", "get_overridable_initializers"), list)
        session |= {"io_binding": lambda: binding, "run_with_iobinding": lambda given: None}
        session["get_providers"] = onnxruntime.get_available_providers
        monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: SimpleNamespace(**session))
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: bound.append("preloaded"))
        return bound

    @pytest.mark.parametrize(
        ("options", "limit", "where"),
        [
            ({}, None, ("cpu", 0)),
            ({"provider": "cuda", "device_id": 1}, None, ("cuda", 1)),
            ({"provider": "tensorrt", "device_id": 1, "max_batch": 5}, 5, ("cuda", 1)),
        ],
        ids=str,
    )
    def test_outputs_stay_on_the_device_that_was_asked_for(self, bound, options, limit, where):
        graph = Graph(Path("g.onnx"), RuntimeOptions(**options), {}, {}, {"pixels": (None, 3, 8, 8)})
        graph.run({}, "x", stay=True)
        graph.run({}, "x")
        assert bound == [*(["preloaded"] * bool(options)), ("x", *where), ("x", "cpu", 0)]
        assert graph.limit == limit

    def test_its_options_come_last(self, nvidia):
        given = {"provider_options": {"trt_fp16_enable": True, "device_id": 2}, "device_id": 1}
        (_, settings), (_, cuda), _ = RuntimeOptions(provider="tensorrt", **given).providers({})
        assert (settings["trt_fp16_enable"], settings["device_id"], cuda["device_id"]) == (True, 2, 1)
        settings = RuntimeOptions(provider="tensorrt", device_id=1).providers({})[0][1]
        assert settings["device_id"] == 1

    @pytest.mark.parametrize(
        ("made", "profile"),
        [({}, {"pixels": (None, 3, 96, 96)}), ({"dynamic_size": True}, {}), ({"with_preprocess": True}, {})],
        ids=str,
    )
    def test_an_engine_has_bounds_where_the_size_is_fixed(self, monkeypatch, made, profile):
        """Else TensorRT makes them as they come."""
        monkeypatch.setattr(GemRuntime, "_open", lambda self, name, profile=None: profile)
        assert GemRuntime(exported(**made)).image_encoder((96, 96)) == profile


def test_what_a_copy_in_another_process_is_told(monkeypatch):
    """All options, and its share of the threads where none are asked for."""
    given = {"optimization": "basic", "arena": False, "max_batch": 3}
    models = [GemRuntime(exported(), **given, **more) for more in ({"threads": 3}, {})]
    monkeypatch.setattr("gem_fast.runtime.engine.GemRuntime", lambda folder, **told: (folder, told))
    monkeypatch.setattr("gem_fast.runtime.engine.encoder", lambda model, *asked: model)
    for model, threads in zip(models, (3, 5), strict=True):
        folder, told = model.replica(None)("cpu:0", 5)
        assert (folder, told["threads"]) == (model.folder, threads)
        assert {name: told[name] for name in given} == given


def test_what_a_runtime_is(nvidia):
    model = GemRuntime(exported(), provider="cuda", device_id=1)
    assert model.devices == ("cuda:1",)
    assert model.identity()["dtype"] == "float32"
    model.manifest = replace(model.manifest, export=replace(model.manifest.export, quantize="int8"))
    assert model.identity()["dtype"] == "int8"
