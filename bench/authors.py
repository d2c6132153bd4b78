"""Where the authors' package lies: gem_torch with the open_clip that it needs, in a folder of its own."""

import os
from pathlib import Path

VARIABLE = "GEM_FAST_AUTHORS"
FOLDER = Path("build", "authors")


def folder() -> Path:
    """Where the package lies: what the environment variable names, else `build/authors` of the working directory."""
    return Path(os.environ.get(VARIABLE) or FOLDER).absolute()


def why_missing(where: Path | None = None) -> str | None:
    """Why the package can't be measured, or None."""
    where = where or folder()
    if (where / "gem").is_dir() and (where / "open_clip").is_dir():
        return None
    return f"the authors' package is not in {where}; `make authors` installs it, {VARIABLE} names another folder"
