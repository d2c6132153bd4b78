"""Where what was found on a GPU is kept for its user: a file for each kind of GPU and version of Triton."""

import os
import re
from pathlib import Path


def user_file(kind: str, device: str, triton_version: str) -> Path:
    """`gem_fast/KIND-DEVICE-triton-VERSION.json` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        RuntimeError: there is no home folder.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gem_fast"
    return folder / f"{kind}-{_slug(device)}-triton-{_slug(triton_version)}.json"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-").lower()
