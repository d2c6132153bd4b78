"""Folders that appear whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gem_fast.errors import ExportError
from gem_fast.runtime.manifest import MANIFEST


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends well; an earlier export of that name is replaced.

    Raises:
        ExportError: something else has that name.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).exists())):
        raise ExportError(f"{out} exists and is no earlier export; name a new or empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        folder = Path(temporary) / "new"
        folder.mkdir()
        folder.chmod(0o755)
        yield folder
        if out.exists():
            out.rename(Path(temporary) / "old")
        folder.rename(out)
