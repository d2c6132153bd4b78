"""The two sides of the gate as they are installed and run: real checkouts of a small repository, real processes."""

import subprocess
import sys

import numpy as np
import pytest
from gem_fast.bench.gate import checkout
from gem_fast.bench.gate.checkout import Checkout, CheckoutError
from gem_fast.bench.gate.operations import OPERATIONS, Operated
from gem_fast.bench.gate.verdict import gate
from gem_fast.bench.processes import ProviderError
from gem_fast.bench.providers import Provider, Subject

import gem_fast


@pytest.fixture
def repository(tmp_path):
    """A repository of one package with two commits; the second, on a branch, adds a file."""
    root = tmp_path / "repository"
    (root / "some").mkdir(parents=True)
    (root / "setup.py").write_text("from setuptools import setup\nsetup(name='some', version='1', packages=['some'])\n")
    (root / "some" / "__init__.py").write_text("ANSWER = 1\n")
    (root / ".gitignore").write_text("ignored\n")
    for arguments in (["init", "-b", "main"], ["add", "."], ["commit", "-m", "one"], ["switch", "-c", "work"]):
        identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)
    return root


def test_the_working_tree_is_what_lies_there(repository):
    clean = checkout.working_tree(repository)
    assert clean == checkout._tree(repository, "HEAD")
    (repository / "ignored").write_text("")
    assert checkout.working_tree(repository) == clean
    (repository / "new.py").write_text("")
    assert checkout.working_tree(repository) != clean
    state = subprocess.run(["git", "-C", str(repository), "status", "--short"], capture_output=True, text=True)
    assert state.stdout == "?? new.py\n"
    assert checkout.default_base(repository) == "HEAD~1"
    with pytest.raises(CheckoutError, match="'nothing' is no commit, branch or tag"):
        checkout.install("nothing", repository / "build", repository)


def test_both_sides_are_installed_and_old_ones_removed(repository, tmp_path):
    folder = tmp_path / "gate"
    (folder / "tree-old").mkdir(parents=True)
    (repository / "some" / "__init__.py").write_text("ANSWER = 2\n")
    before, after = checkout.install("main", folder, repository)
    assert not (folder / "tree-old").exists()
    assert [(side.folder / "some" / "__init__.py").read_text() for side in (before, after)] == [
        "ANSWER = 1\n",
        "ANSWER = 2\n",
    ]
    (repository / "setup.py").write_text("no Python\n")
    with pytest.raises(CheckoutError, match="does not install"):
        checkout.install("main", folder, repository)
    assert {path.name for path in folder.iterdir()} == {before.folder.name}  # nothing half-installed


def test_a_library_that_did_not_compile_on_one_side_is_no_regression(repository, tmp_path):
    (repository / "some" / "native.so").write_bytes(b"")
    (repository / "setup.py").write_text(
        "from setuptools import setup\n"
        "setup(name='some', version='1', packages=['some'], package_data={'some': ['*.so']})\n"
    )
    with pytest.raises(CheckoutError, match="native kernels compiled for only one of main and working tree"):
        checkout.install("main", tmp_path / "gate", repository)


def installation(folder, name, value, labels=True):
    """An installation that holds just what three operations import; `value` is what a photo has in it."""
    package = folder / name / "gem_fast"
    (package / "kernels").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "images.py").write_text(f"def load_image(path):\n    return [[1, {value}], [3, 4]]\n")
    decode = "def decode_labels(scores, size, **_):\n    return scores.argmax(0), None\n" if labels else ""
    (package / "kernels" / "__init__.py").write_text(decode)
    return Checkout(name, "0" * 40, package.parent)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="older Pythons import from where they are started")
def test_each_side_runs_its_own_installation(tmp_path):
    """Processes of both sides, over packages that hold just what some operations import."""
    before = installation(tmp_path, "before", 2, labels=False)
    after = installation(tmp_path, "after", 2.5)
    chosen = [o for o in OPERATIONS if o.name.startswith(("reading", "labels", "heat maps"))]
    verdicts = gate(before.open, after.open, chosen, pause=0.0)
    assert [verdict.status for verdict in verdicts] == ["new", "fails", "differs"]
    assert verdicts[2].distance == pytest.approx(0.5 / 30**0.5)
    assert "decode_heatmaps" in verdicts[1].reason


def test_a_side_that_would_run_another_installation_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ProviderError, match=r"nobody: RuntimeError: this process imported .*, not what lies in .*empty"
    ):
        Checkout("nobody", "0" * 40, tmp_path / "empty").open("reading a JPEG")


def test_every_operation_agrees_with_itself(monkeypatch):
    """All but the large model's, which need gigabytes: set up twice, called, and the same within what is allowed."""
    monkeypatch.setenv("PYTHONPATH", gem_fast.__path__[0].removesuffix("gem_fast"))
    for operation in OPERATIONS:
        if operation.name.startswith(("forward ViT", "text")):
            continue
        results = []
        for _ in range(2):
            loaded = Operated(Provider("here", "checkout"), Subject(operation.name), "cpu", None)
            loaded.run()
            loaded.run()
            results.append(loaded.features())
        assert np.isfinite(results[0]).all(), operation.name
        assert results[0].dtype == np.float32
        assert np.linalg.norm(results[0] - results[1]) <= operation.allowed * np.linalg.norm(results[0])
