"""Folders that appear whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gem_fast.errors import ExportError
from gem_fast.runtime.manifest import MANIFEST, is_manifest


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends well; an earlier export of that name is replaced.

    Where the name is a link, what it points to is replaced.

    Raises:
        ExportError: something else has that name, or it can't be replaced.
    """
    target = out.resolve()
    _check_replaceable(out, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        folder = Path(temporary) / "new"
        folder.mkdir()
        folder.chmod(0o755)
        yield folder
        _check_replaceable(out, target)  # again: much can come there in the minutes of an export
        _swap(folder, target, Path(temporary) / "old")


def _swap(folder: Path, target: Path, old: Path) -> None:
    """Give the folder the target's name, and what has it another; both or, if that fails or is interrupted, neither."""
    try:
        if target.exists():
            target.rename(old)
        folder.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise


def _check_replaceable(out: Path, target: Path) -> None:
    """ExportError unless nothing is there, or an empty folder, or an earlier export, that can be moved away."""
    if not target.exists():
        return
    if not target.is_dir() or (any(target.iterdir()) and not is_manifest(target / MANIFEST)):
        raise ExportError(f"{out} exists and is no earlier export; name a new or empty folder")
    if target.is_mount() or Path.cwd().is_relative_to(target):
        kind = "a mount point" if target.is_mount() else "the folder that you are in"
        raise ExportError(f"{out} is {kind}, which can't be replaced; name a folder in it")
