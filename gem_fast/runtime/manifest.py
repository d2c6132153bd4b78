"""The manifest of an exported folder: what the graphs are of, and how to use them. Needs neither torch nor onnx."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import ExportError

FORMAT = "gem_fast.export"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an exported folder.

    Its entries: `model` (name, source, weights_sha256, options of GEM), `image` (patch_size, embed_dim, mean, std,
    default_size), `text` (context_length, templates, known_tokens), `defaults` (logit_scale, threshold,
    heatmap_threshold), `export` (the options it was made with), `versions`, `check` (the fields of every
    `Comparison` with torch; null if there was none), and
    `files`: for each file its `role`, `sha256` and, for graphs, `inputs`, `outputs`, `external_data` and, for an image
    encoder, `size` (height and width, or null for any).

    Raises:
        ExportError: there is none, or it is damaged or of another format.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"{folder} is no exported model: {MANIFEST} can't be read ({error.strerror})") from error
    except ValueError as error:
        raise ExportError(f"{path} is damaged: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ExportError(f"{path} is not the manifest of an exported model")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ExportError(
            f"{path} has format version {manifest.get('format_version')}, this gem_fast reads {FORMAT_VERSION}; "
            "export the model again"
        )
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest into the folder; ValueError if a figure in it is not finite."""
    content = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(content + "\n", encoding="utf-8")


def files_of(manifest: dict[str, Any], role: str) -> dict[str, dict[str, Any]]:
    """The files of a role (image_encoder, text_encoder, head, cosines, heatmaps, labels, tokenizer) by their names."""
    return {name: entry for name, entry in manifest["files"].items() if entry["role"] == role}


def verify_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare every file with its sha256.

    Raises:
        ExportError: a file is missing or has changed.
    """
    for name, entry in manifest["files"].items():
        path = Path(folder) / name
        if not path.is_file():
            raise ExportError(f"{folder} lacks {name}, which its manifest names; export the model again")
        if file_sha256(path) != entry["sha256"]:
            raise ExportError(f"{path} is damaged: it is not the file that was exported; export the model again")


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def size_name(size: tuple[int, int]) -> str:
    """As in file names: 448x640, height first."""
    return f"{size[0]}x{size[1]}"
