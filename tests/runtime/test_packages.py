"""Several builds of ONNX Runtime, which share their files, and one that is older than the export."""

import sys

import onnxruntime
import pytest

from gem_fast.errors import ExportError
from gem_fast.runtime import GemRuntime, RuntimeOptions
from gem_fast.runtime.graph import version_numbers
from gem_fast.runtime.packages import installed_builds, two_runtimes
from tests.runtime.runtime_exports import exported

LIBRARY = "onnxruntime/capi/onnxruntime_pybind11_state.so"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A function that installs a build into the only folder of packages: its library has the content."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    def install(name, version, content):
        """Without content it has no library."""
        if content:
            (tmp_path / LIBRARY).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / LIBRARY).write_bytes(content)
        facts = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (facts / "RECORD").write_text(f"{LIBRARY},sha256=x,{len(content)}\n" * bool(content))

    return install


def test_one_build_is_nothing_to_speak_of(site):
    site("onnxruntime", "1.32.0", b"plain")
    assert [each.name for each in installed_builds()] == ["onnxruntime"]
    assert two_runtimes() is None


@pytest.mark.parametrize("last", ["onnxruntime", "onnxruntime-openvino"])
def test_of_two_builds_the_last_one_runs(site, last):
    contents = {"onnxruntime": b"plain", "onnxruntime-openvino": b"with OpenVINO"}
    for name in sorted(contents, key=lambda name: name == last):
        site(name, "1.30.0", contents[name])
    told = two_runtimes()
    assert f"what runs is {last}:" in told
    assert "onnxruntime 1.30.0 and onnxruntime-openvino 1.30.0 are installed over each other" in told
    assert "pip uninstall -y onnxruntime onnxruntime-openvino" in told


@pytest.mark.parametrize(
    ("gpu", "told"), [(b"", "what runs is onnxruntime:"), (b"plain", "what runs is a mixture:")], ids=["empty", "alike"]
)
def test_what_runs_is_the_only_build_whose_library_is_there(site, gpu, told):
    site("onnxruntime", "1.30.0", b"plain")
    site("onnxruntime-gpu", "1.30.0", gpu)
    assert told in two_runtimes()


def test_a_runtime_tells_of_two_builds(monkeypatch):
    monkeypatch.setattr("gem_fast.runtime.engine.two_runtimes", lambda: "two of them")
    monkeypatch.setattr("gem_fast.runtime.runtime_options.two_runtimes", lambda: "two of them")
    with pytest.warns(UserWarning, match="two of them"):
        GemRuntime(exported())
    with pytest.raises(ExportError, match=r"openvino comes with the package onnxruntime-openvino\. two of them$"):
        RuntimeOptions(provider="openvino")


def test_an_older_runtime_hears_what_the_manifest_asks_for(monkeypatch):
    model = GemRuntime(exported())
    needed = model.manifest.versions["onnxruntime"]

    def refuse(*_, **__):
        raise ValueError("Unsupported model IR version: 11, max supported IR version: 10")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(ExportError, match=r"max supported IR version: 10$"):
        model.graph("cosines")
    monkeypatch.setattr(onnxruntime, "__version__", "1.9.1")
    with pytest.raises(ExportError, match=rf"This is ONNX Runtime 1\.9\.1, and the manifest asks for {needed}"):
        model.graph("cosines")


def test_versions_are_compared_by_their_numbers():
    assert version_numbers("1.9.0") < version_numbers("1.20.1") < version_numbers("1.32.0.dev2")
    assert version_numbers("unknown") == ()
