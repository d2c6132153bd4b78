"""Which folders an export takes the place of, and which it leaves alone."""

import json
import os
import signal
import subprocess
import sys

import pytest
from gem_fast.export import ExportError
from gem_fast.export import folders as module
from gem_fast.export.folders import whole_folder


def export_into(out, name="new.onnx"):
    """What every export does, with a manifest of an older version."""
    with whole_folder(out) as folder:
        (folder / name).write_text("graph")
        (folder / "manifest.json").write_text(json.dumps({"format": "gem_fast.export", "format_version": 1}))


def test_an_earlier_export_of_any_version_is_replaced(tmp_path):
    out = tmp_path / "a folder, ganz neu" / "exported"
    export_into(out, "old.onnx")
    export_into(out)
    assert sorted(os.listdir(out)) == ["manifest.json", "new.onnx"]
    assert os.listdir(out.parent) == ["exported"]


@pytest.mark.parametrize(
    "content",
    [b'{"name": "web app", "icons": []}', b"[]", b"", b"\xff\xfe", b'{"format": "gem_fast.export"', b"[" * 100_000],
    ids=["web app", "list", "empty", "no text", "cut", "deep"],
)
def test_another_manifest_is_no_earlier_export(tmp_path, content):
    """Extensions of browsers, web apps and data sets have a file of that name."""
    (tmp_path / "manifest.json").write_bytes(content)
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ExportError, match="exists and is no earlier export; name a new or empty folder"):
        export_into(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["manifest.json", "thesis.txt"]


def test_what_comes_there_while_an_export_is_written_stays(tmp_path):
    out = tmp_path / "out"

    def export_slowly():
        with whole_folder(out):
            out.mkdir()
            (out / "thesis.txt").write_text("precious")

    with pytest.raises(ExportError, match="no earlier export"):
        export_slowly()
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(out) == ["thesis.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError], ids=lambda error: error.__name__)
@pytest.mark.parametrize("step", range(4), ids=["before the first", "after it", "before the second", "after it too"])
def test_the_earlier_export_outlives_a_swap_that_ends_anywhere(tmp_path, monkeypatch, step, error):
    out, rename, steps = tmp_path / "out", module.Path.rename, iter(range(4))
    export_into(out, "old.onnx")

    def interrupted(path, target):
        if next(steps, None) == step:
            raise error
        rename(path, target)
        if next(steps, None) == step:
            raise error

    monkeypatch.setattr(module.Path, "rename", interrupted)
    with pytest.raises(error):
        export_into(out)
    assert os.listdir(tmp_path) == ["out"]
    assert sorted(os.listdir(out)) == ["manifest.json", "new.onnx" if step == 3 else "old.onnx"]


@pytest.mark.parametrize("there", [True, False], ids=["a folder", "nothing"])
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path, there):
    target = tmp_path / "disk" / "exported"
    if there:
        export_into(target, "old.onnx")
    (tmp_path / "link").symlink_to(target)
    export_into(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(target)) == ["manifest.json", "new.onnx"]


def test_an_export_is_for_all_to_read_whatever_the_usual_mode_is(tmp_path):
    usual = os.umask(0o077)
    try:
        export_into(tmp_path / "out")
    finally:
        os.umask(usual)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_an_earlier_export_around_the_folder_that_one_is_in_stays(tmp_path, monkeypatch):
    export_into(tmp_path / "out", "old.onnx")
    (tmp_path / "out" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "out" / "below")
    with pytest.raises(ExportError, match="is the folder that you are in"):
        export_into(tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["below", "manifest.json", "old.onnx"]


def test_folders_that_cannot_be_moved_are_told_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "out" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "out" / "below")
    with pytest.raises(ExportError, match="is the folder that you are in"):
        export_into(module.Path())
    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(module.Path, "is_mount", lambda path: path.name == "mounted")
    with pytest.raises(ExportError, match="mounted is a mount point, which can't be replaced; name a folder in it"):
        export_into(tmp_path / "mounted")
    assert sorted(os.listdir(tmp_path)) == ["mounted", "out"]


HELD = """
import sys, time
from gem_fast.cli import app
from gem_fast.export import graph_files
def hold(*_):
    print("writing", flush=True)
    time.sleep(60)
graph_files.file_sha256 = hold
app(["export", "--size", "16", "--gem-blocks", "1", "--out", sys.argv[1]])
"""


def test_a_terminated_export_leaves_nothing(tmp_path):
    """As `docker stop`, `timeout` and cluster schedulers end a process."""
    run = subprocess.Popen(
        [sys.executable, "-c", HELD, tmp_path / "out"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "writing\n"
    run.send_signal(signal.SIGTERM)
    _, told = run.communicate(timeout=30)
    assert (run.returncode, told) == (130, "interrupted; nothing is written\n")
    assert os.listdir(tmp_path) == []
