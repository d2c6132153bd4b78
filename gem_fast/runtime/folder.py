"""The files of an exported folder: whether they are there, and are what was exported."""

import hashlib
from pathlib import Path

from ..errors import ExportError
from .manifest import MANIFEST, Manifest, read_manifest

NEEDED = ("image_encoder", "text_encoder", "cosines", "heatmaps", "labels", "tokenizer")
_TOKENIZER_LIMIT = 256 << 20  # bytes of a file that is read whole


def open_folder(folder: Path, verify: bool = True) -> Manifest:
    """What the runtime needs to know of an exported folder.

    Args:
        folder: what `gem-fast export --format onnx` wrote; it may be a link.
        verify: compare every file with its sha256, or else only look whether it is there.

    Raises:
        ExportError: the folder is no exported model, or a file is missing, reached through a link, or was changed.
    """
    manifest = read_manifest(folder)
    if lacking := [role for role in NEEDED if not manifest.of_role(role)]:
        raise ExportError(
            f"{folder / MANIFEST} names no file for {', '.join(lacking)}: it is of the format "
            f"{manifest.export.format}; export with --format onnx"
        )
    verify_files(folder, manifest, verify)
    return manifest


def verify_files(folder: Path, manifest: Manifest, hashes: bool = True) -> None:
    """Compare the folder with its manifest, by `hashes` every byte.

    Raises:
        ExportError: a file is missing, reached through a link, too large or has changed.
    """
    folder = Path(folder)
    for name in manifest.files:
        if link := _link(folder, name):
            raise ExportError(f"{link} is a link; the files of an export must lie in its folder, so copy what it names")
    if missing := [name for name in manifest.files if not (folder / name).is_file()]:
        raise ExportError(f"{folder} lacks {', '.join(missing)}; copy the whole folder, or export the model again")
    for name in manifest.of_role("tokenizer"):
        if (folder / name).stat().st_size > _TOKENIZER_LIMIT:
            raise ExportError(f"{folder / name} is no tokenizer: it has more than {_TOKENIZER_LIMIT:,} bytes")
    for name, entry in manifest.files.items() if hashes else ():
        if file_sha256(folder / name) != entry.sha256:
            raise ExportError(
                f"{folder / name} is damaged: it is not the file that was exported; export the model again"
            )


def _link(folder: Path, name: str) -> Path | None:
    """The first part of the way from the folder to a file that is a link, if one is."""
    path = folder
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            return path
    return None


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
