"""The two sides of the gate as they are installed and run: real checkouts of a small repository, real processes."""

import subprocess
from contextlib import nullcontext

import numpy as np
import pytest
from gem_fast.bench.gate import checkout, sides
from gem_fast.bench.gate.checkout import Checkout, CheckoutError
from gem_fast.bench.gate.operations import OPERATIONS
from gem_fast.bench.gate.sides import open_pair
from gem_fast.bench.gate.turns import Plan, gate
from gem_fast.bench.gate.worker import Worker
from gem_fast.bench.processes import ProviderError


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


def installation(folder, name, value, native, labels=True):
    """An installation that holds just what three operations import; `value` is what a photo has in it."""
    package = folder / name / "gem_fast"
    (package / "kernels").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "images.py").write_text(f"def load_image(path):\n    return [[1, {value}], [3, 4]]\n")
    (package / "kernels" / "cpu_library.py").write_text(f"def paths():\n    return {native!r}\n")
    decode = "def decode_labels(scores, size, **_):\n    return scores.argmax(0), None\n" if labels else ""
    (package / "kernels" / "__init__.py").write_text(decode)
    return Checkout(name, "0" * 40, package.parent)


def test_each_side_runs_its_own_installation(tmp_path):
    """Processes of both sides, over packages that hold just what some operations import."""
    before = installation(tmp_path, "before", 2, ("avx2",), labels=False)
    after = installation(tmp_path, "after", 2.5, ("avx2",))
    chosen = [o for o in OPERATIONS if o.name.startswith(("reading", "labels", "heat maps"))]
    verdicts = gate(lambda: open_pair(before, after, tmp_path, 1), chosen, Plan(pause=0.0))
    assert [verdict.status for verdict in verdicts] == ["new", "fails", "differs"]
    assert verdicts[2].distance == pytest.approx(0.5 / 30**0.5)
    assert "decode_heatmaps" in verdicts[1].reason


def test_a_library_that_did_not_compile_on_one_side_is_no_regression(monkeypatch, tmp_path):
    class Loaded(nullcontext):
        def __init__(self, side, tools, threads):
            self.native = side.name.split()
            super().__init__(self)

    monkeypatch.setattr(sides, "SideProcess", Loaded)
    fast, plain = (Checkout(name, "0" * 40, tmp_path) for name in ("avx2", ""))
    with open_pair(fast, fast, tmp_path) as pair:
        assert [side.native for side in pair] == [["avx2"], ["avx2"]]
    with pytest.raises(ProviderError, match="native kernels are not the same"), open_pair(fast, plain, tmp_path):
        pass


def test_every_operation_agrees_with_itself():
    """All but the large model's, which need gigabytes: set up twice, called, and the same within what is allowed."""
    small = [operation for operation in OPERATIONS if not operation.name.startswith(("forward ViT", "text"))]
    worker = Worker(small)
    for operation in small:
        first, again = (worker.prepare({"operation": operation.name}, None) for _ in range(2))
        assert first[0]["missing"] is None, operation.name
        assert np.isfinite(first[1]).all(), operation.name
        assert np.linalg.norm(first[1] - again[1]) <= operation.allowed * np.linalg.norm(first[1])
