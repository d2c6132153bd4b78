"""Engines for TensorRT: the calls that build them, recorded by a stand-in, and the command that does."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest
import torch
from gem_fast.export import ExportError, ExportOptions
from gem_fast.export.onnx_export import write_graphs
from gem_fast.export.tensorrt import build
from gem_fast.export.tensorrt.build import Extent, build_engine
from gem_fast.export.tensorrt.tensorrt_export import build_engines, export_tensorrt

import gem_fast

SIZES = ((32, 32), (32, 48))


@pytest.fixture(scope="module")
def model():
    return gem_fast.load("gem-tiny", gem_blocks=2, inverse_temperature=None)


@dataclass
class Recorder:
    """TensorRT's builder, as far as `build_engine` uses it; says what it was told."""

    parses: bool = True
    plan: bytes | None = b"plan"
    flags: int = 0
    profiles: list = field(default_factory=list)
    cache: bytes = b""

    def install(self, monkeypatch):
        trt = ModuleType("tensorrt")
        trt.__version__ = "10.15.1"
        trt.Logger = type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None})
        trt.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1, PREFER_AOT_PYTHON_PLUGINS=3)
        trt.Dims = tuple
        errors = {"num_errors": 0 if self.parses else 1, "get_error": lambda i: "no importer for Foo"}
        parser = SimpleNamespace(parse_from_file=lambda path: self.parses, **errors)
        trt.OnnxParser = lambda network, logger: parser
        trt.Builder = lambda logger: SimpleNamespace(
            create_network=self.create_network,
            create_builder_config=lambda: SimpleNamespace(
                add_optimization_profile=lambda profile: None,
                create_timing_cache=self.create_timing_cache,
                set_timing_cache=self.set_timing_cache,
                get_timing_cache=lambda: SimpleNamespace(serialize=lambda: b"newer timings"),
            ),
            create_optimization_profile=lambda: SimpleNamespace(set_shape=self.set_shape),
            build_serialized_network=lambda network, config: self.plan,
        )
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr(build, "why_not_here", lambda: None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
        return self

    def create_network(self, flags):
        self.flags = flags

    def create_timing_cache(self, stored):
        return stored

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return cache != b"of another GPU"

    def set_shape(self, name, *shapes):
        self.profiles.append((name, *shapes))


@pytest.fixture
def graph(model, tmp_path):
    write_graphs(model, tmp_path, ExportOptions(attention="tensorrt", sizes=SIZES[:1]))
    return tmp_path / "image_encoder.onnx"


def test_the_engine_the_sidecar_and_the_timing_cache(graph, monkeypatch):
    recorder = Recorder().install(monkeypatch)
    (graph.parent / "timing.cache").write_bytes(b"older timings")
    build_engine(graph, graph.with_suffix(".engine"), [{"batch": Extent(1, 2, 8)}])
    assert recorder.flags == 1 << 1
    assert recorder.profiles[0] == ("pixels", (1, 3, 32, 32), (2, 3, 32, 32), (8, 3, 32, 32))
    assert recorder.cache == b"older timings"
    (graph.parent / "timing.cache").write_bytes(b"of another GPU")
    build_engine(graph, graph.with_suffix(".engine"), [{"batch": Extent(1, 2, 8)}])
    assert recorder.cache == b""
    assert (graph.parent / "timing.cache").read_bytes() == b"newer timings"
    assert graph.with_suffix(".engine").read_bytes() == b"plan"
    with open(graph.parent / "timing.cache", "wb") as file:
        file.truncate((1 << 30) + 1)  # takes no room
    with pytest.raises(ExportError, match=r"timing\.cache has more than 1,073,741,824 bytes"):
        build_engine(graph, graph.with_suffix(".engine"), [{"batch": Extent(1, 2, 8)}])
    facts = json.loads((graph.parent / "image_encoder.engine.json").read_text())
    assert (facts["tensorrt"], facts["arch"], facts["plugins"]) == ("10.15.1", "sm_90", False)
    assert facts["profiles"] == [{"batch": {"least": 1, "usual": 2, "most": 8}}]
    assert json.loads(facts["gem_fast"])["model"]["name"] == "gem-tiny"


def test_plugins_are_registered_once_and_their_kernels_preferred(model, tmp_path, monkeypatch):
    write_graphs(model, tmp_path, ExportOptions(attention="plugin", sizes=SIZES[:1]))
    recorder, registered = Recorder().install(monkeypatch), []
    plugin = ModuleType("tensorrt.plugin")
    plugin.op = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", plugin)
    monkeypatch.setattr(build, "register", lambda arch: (registered.append(arch), setattr(plugin.op, "gem_fast", 1)))
    for _ in range(2):
        build_engine(tmp_path / "image_encoder.onnx", tmp_path / "a.engine", [{"batch": Extent(1, 1, 1)}])
    assert registered == ["sm_90"]
    assert recorder.flags == (1 << 1) | (1 << 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(ExportError, match="this GPU is sm_75"):
        build_engine(tmp_path / "image_encoder.onnx", tmp_path / "a.engine", [{"batch": Extent(1, 1, 1)}])


@pytest.mark.parametrize(
    ("refusal", "told"), [({"parses": False}, "no importer for Foo"), ({"plan": None}, "could not build an engine")]
)
def test_a_refusal_leaves_nothing(graph, monkeypatch, refusal, told):
    Recorder(**refusal).install(monkeypatch)
    before = sorted(graph.parent.iterdir())
    with pytest.raises(ExportError, match=told):
        build_engine(graph, graph.with_suffix(".engine"), [{"batch": Extent(1, 1, 1)}])
    assert sorted(graph.parent.iterdir()) == before


def test_engines_of_an_exported_folder(model, tmp_path, monkeypatch):
    export_tensorrt(model, tmp_path / "out", ExportOptions(attention="onnx", sizes=SIZES, check=False))
    recorder = Recorder().install(monkeypatch)
    assert build_engines(tmp_path / "out", lambda line: None) == ["image_encoder.engine", "text_encoder.engine"]
    assert [shape[2] for shape in recorder.profiles[:2]] == [(8, 3, 32, 32), (8, 3, 32, 48)]
    with pytest.raises(ExportError, match="there is no graph head"):
        build_engines(tmp_path / "out", print, ("head",))
    with pytest.raises(ExportError, match="is no export for TensorRT"):
        build_engines(tmp_path, print)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"image_encoder": [{"batch": {"least": 1, "usual": 2}}]}', r"image_encoder\[0\]\.batch\.most is missing"),
        (
            '{"image_encoder": [{"batch": {"least": 2, "usual": 1, "most": 3}}]}',
            "an extent must rise from 1",
        ),
        ('{"image_encoder": [{"batch": 4}]}', r"image_encoder\[0\]\.batch must be an object, got 4"),
        (" " * (2 << 20), "more than 1,048,576 bytes"),
    ],
    ids=["deep", "short", "falling", "number", "large"],
)
def test_damaged_profiles(tmp_path, content, told):
    (tmp_path / "tensorrt.json").write_text(content)
    with pytest.raises(ExportError, match=rf"is no export for TensorRT: tensorrt\.json can't be read \(.*{told}"):
        build_engines(tmp_path, print)


@pytest.mark.parametrize("name", ["../image_encoder", "/etc/x", "head", ""])
def test_profiles_of_a_graph_that_is_none_of_ours(tmp_path, name):
    """An engine would be written beside it."""
    (tmp_path / "tensorrt.json").write_text(json.dumps({name: []}))
    with pytest.raises(ExportError, match=rf'tensorrt\.json names a graph "{name}"; it may name image_enc'):
        build_engines(tmp_path, print)


def test_the_module_as_a_command(tmp_path):
    command = [sys.executable, "-m", "gem_fast.export.tensorrt", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert run.returncode == 2
    assert "is no export for TensorRT: tensorrt.json can't be read" in run.stderr
