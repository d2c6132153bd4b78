"""Wrong manifests in every format that has one: named in a line with status 2, before anything is run."""

import copy
import json
import re
import shutil
from dataclasses import replace

import pytest
from gem_fast.export import ExportOptions
from gem_fast.export.segmenter_export import export_segmenter
from gem_fast.export.tensorrt.tensorrt_export import export_tensorrt
from gem_fast.export.triton_server import export_triton_server

import gem_fast
from gem_fast.errors import ExportError
from gem_fast.runtime.facts import FORMATS, ExportFacts, FileFacts
from gem_fast.runtime.manifest import read_manifest, write_manifest
from tests.command_line import invoke
from tests.runtime.runtime_exports import exported
from tests.runtime.wrong_manifests import COMMON_KINDS, VOCABULARY_KINDS

SIZE = (96, 96)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each format, not to be changed."""
    root, options = tmp_path_factory.mktemp("formats"), ExportOptions(sizes=(SIZE,), check=False)
    model = gem_fast.load("gem-tiny", gem_blocks=1)
    export_segmenter(model, root / "segmenter", model.query(["cat", "car"], background=["tree"]), options, True)
    export_triton_server(model, root / "triton-server", options)
    export_tensorrt(model, root / "tensorrt", replace(options, attention="portable"))
    shutil.copytree(exported(), root / "onnx")
    for format in ("pt2", "exported-program"):  # what is compiled takes long, and is none of the manifest's business
        made = read_manifest(exported())
        files = {"image_encoder.pt2": FileFacts(FORMATS[format], "0" * 64, SIZE)}
        (root / format).mkdir()
        (root / format / "image_encoder.pt2").write_bytes(b"")
        write_manifest(root / format, replace(made, export=ExportFacts(format, "float32", (SIZE,)), files=files))
    return root


def damaged(folder, target, where, value):
    """Write the folder's manifest with a value at a way of keys into another one; at no way, the value instead."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    target.mkdir(exist_ok=True)
    if where is None:
        (target / "manifest.json").write_text(value)
        return
    name = next(name for name, entry in manifest["files"].items() if entry["size"])
    if where == "files":
        manifest["files"][value] = manifest["files"].pop(name)
    else:
        *way, last = ["files", name, *where.split("/")[1:]] if where.startswith("file/") else where.split("/")
        holder = manifest
        for key in way:
            holder = holder[key]
        holder[last] = value
    (target / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def status_2_in_a_line(folder, tmp_path):
    done = invoke("segment", tmp_path, "--prompt", "cat", "--out", tmp_path / "out", "--runtime", folder)
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", COMMON_KINDS)
def test_each_wrong_entry_in_each_format(folders, tmp_path, format, kind):
    where, value, told = COMMON_KINDS[kind]
    damaged(folders / format, tmp_path / "wrong", where, value)
    assert re.search(
        rf"manifest\.json is damaged: .*{re.escape(told)}", status_2_in_a_line(tmp_path / "wrong", tmp_path)
    )


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_reached_through_a_link(folders, tmp_path, format):
    copied = shutil.copytree(folders / format, tmp_path / "linked")
    name = next(name for name, entry in read_manifest(copied).files.items() if entry.size)
    (copied / name).rename(tmp_path / "elsewhere")
    (copied / name).symlink_to(tmp_path / "elsewhere")
    line = status_2_in_a_line(copied, tmp_path)
    assert ("is a link; " if format in ("onnx", "tensorrt") else f"it is of the format {format}; export") in line


@pytest.mark.parametrize("kind", VOCABULARY_KINDS)
def test_each_wrong_vocabulary(folders, tmp_path, kind):
    where, value, told = VOCABULARY_KINDS[kind]
    damaged(folders / "segmenter", tmp_path / "wrong", where, value)
    with pytest.raises(
        ExportError, match=rf"manifest\.json is damaged: .*{re.escape(told)}.*; export the model again$"
    ):
        read_manifest(tmp_path / "wrong")


def test_a_vocabulary_belongs_to_a_segmenter(folders, tmp_path):
    stored = json.loads((folders / "segmenter" / "manifest.json").read_text(encoding="utf-8"))["vocabulary"]
    damaged(folders / "onnx", tmp_path / "wrong", "vocabulary", copy.deepcopy(stored))
    assert "vocabulary must be null in the format onnx" in status_2_in_a_line(tmp_path / "wrong", tmp_path)
