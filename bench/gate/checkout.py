"""Both sides of a comparison, a commit and the working tree, each installed into a folder of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..processes import ProviderProcess
from ..providers import Provider, Subject

BENCH, ROOT = Path(__file__).resolve().parents[1:3]
_ALIAS = "gate_bench"  # `bench` of the working tree under a name that neither installation has


class CheckoutError(RuntimeError):
    """A side can't be found or installed; the message says why."""


@dataclass(frozen=True)
class Checkout:
    """An installation of one state of the sources.

    Attributes:
        name: what tables call it.
        tree: git's name of its content; equal trees are one installation.
        folder: where its packages lie, its own native library among them.
    """

    name: str
    tree: str
    folder: Path

    def open(self, operation: str, threads: int | None = None) -> ProviderProcess:
        """A new process with an operation over this installation; ProviderError if it lacks it or fails."""
        alias = self.folder.parent / "tools" / _ALIAS
        if alias.resolve() != BENCH:
            alias.parent.mkdir(parents=True, exist_ok=True)
            alias.unlink(missing_ok=True)
            alias.symlink_to(BENCH)
        side, command = Provider(self.name, "checkout"), ("-m", f"{_ALIAS}.gate.operations")
        packages = (self.folder, alias.parent)
        return ProviderProcess(side, Subject(operation), threads=threads, command=command, first=packages)


def install(base: str | None, folder: Path, root: Path = ROOT) -> tuple[Checkout, Checkout]:
    """The commit and the working tree, installed under `folder`; installations of other trees there are removed.

    Args:
        base: commit, branch or tag; None is main, or on main itself the commit before.

    Raises:
        CheckoutError: there is no such commit, an installation fails, or native kernels compiled for one side only.
    """
    ref = base or default_base(root)
    sides = [(ref, _tree(root, ref)), ("working tree", working_tree(root))]
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("tree-*"):
        if old.name not in [f"tree-{tree}" for _, tree in sides]:
            shutil.rmtree(old)
    before, after = (Checkout(name, tree, _installed(root, tree, folder / f"tree-{tree}")) for name, tree in sides)
    if len({any(side.folder.rglob("*.so")) for side in (before, after)}) > 1:
        raise CheckoutError(f"native kernels compiled for only one of {before.name} and {after.name}")
    return before, after


def default_base(root: Path) -> str:
    """`main`, or where HEAD is main itself the commit before."""
    main = _git(root, "rev-parse", "--verify", "--quiet", "main^{commit}", check=False)
    return "main" if main and main != _git(root, "rev-parse", "HEAD") else "HEAD~1"


def working_tree(root: Path) -> str:
    """Git's name of the working tree's content, untracked files that are not ignored included; the index stays."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        _git(root, "read-tree", "HEAD", env=env)
        _git(root, "add", "--all", env=env)
        return _git(root, "write-tree", env=env)


def _tree(root: Path, ref: str) -> str:
    tree = _git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{tree}}", check=False)
    if not tree:
        raise CheckoutError(f"{ref!r} is no commit, branch or tag of {root}; name one by --base")
    return tree


def _installed(root: Path, tree: str, target: Path) -> Path:
    """Install a tree as a user's pip would, compiling its native library, unless that was done before."""
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as folder:
        sources, built = Path(folder, "sources"), Path(folder, "built")
        env = {"GIT_INDEX_FILE": str(Path(folder, "index").absolute())}
        _git(root, "read-tree", tree, env=env)
        _git(root, "checkout-index", "--all", f"--prefix={sources.absolute()}/", env=env)
        pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(built)]
        done = subprocess.run([sys.executable, *pip, str(sources)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CheckoutError(f"tree {tree[:12]} does not install: {' '.join(done.stderr.split()[-60:])}")
        built.rename(target)
    return target


def _git(root: Path, *arguments: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    """What git prints; where `check` is off, nothing if it fails."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})
    except FileNotFoundError as error:
        raise CheckoutError("the gate compares commits, and git is not installed") from error
    if check and done.returncode:
        raise CheckoutError(f"git {arguments[0]} failed in {root}: {done.stderr.strip()}")
    return done.stdout.strip() if done.returncode == 0 else ""
