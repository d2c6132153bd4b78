"""What the runtime needs to know of an exported folder, from its manifest."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import ExportError
from ..options import Defaults
from .manifest import MANIFEST, files_of, read_manifest, verify_files

ROLES = ("text_encoder", "cosines", "heatmaps", "labels", "tokenizer")  # one file each


@dataclass(frozen=True)
class ModelFiles:
    """The files of an exported model, and how to use them.

    Attributes:
        folder: where they lie.
        name: the model's.
        paths: file of each role.
        image_encoders: file for each size of the input, height and width; under None one for any multiple of the patch.
        patch_size: in pixels.
        mean, std: the normalisation of pixels in 0..1.
        context: the most tokens in a text.
        known_tokens: ids that the text encoder has rows for, or None for all.
        defaults: input size and thresholds when the caller names none.
        with_preprocess: the image encoder takes uint8 images of any size.
        identity: what results depend on: model, weights, method and type.
    """

    folder: Path
    name: str
    paths: Mapping[str, Path]
    image_encoders: Mapping[tuple[int, int] | None, Path]
    patch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    context: int
    known_tokens: frozenset[int] | None
    defaults: Defaults
    with_preprocess: bool
    identity: Mapping[str, Any]

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Sizes of the input, none if it may have any."""
        return tuple(size for size in self.image_encoders if size is not None)


def open_folder(folder: Path, verify: bool) -> ModelFiles:
    """Read the manifest, and look whether the files are there and, with `verify`, what was exported.

    Raises:
        ExportError: the folder is no exported model, or a file is missing or was changed.
    """
    manifest = read_manifest(folder)
    try:
        files = _parse(folder, manifest)
        if verify:
            verify_files(folder, manifest)
    except ExportError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ExportError(f"{folder / MANIFEST} is damaged: {reason}") from error
    if missing := [name for name in manifest["files"] if not (folder / name).is_file()]:
        raise ExportError(f"{folder} lacks {', '.join(missing)}; copy the whole folder, or export the model again")
    return files


def _parse(folder: Path, manifest: dict[str, Any]) -> ModelFiles:
    image, text, defaults = manifest["image"], manifest["text"], manifest["defaults"]
    encoders = {
        tuple(map(int, entry["size"])) if entry["size"] else None: folder / name
        for name, entry in files_of(manifest, "image_encoder").items()
    }
    paths = {role: folder / name for role in ROLES for name in files_of(manifest, role)}
    if lacking := [role for role in ROLES if role not in paths] or ([] if encoders else ["image_encoder"]):
        raise ExportError(f"{folder / MANIFEST} names no file for {', '.join(lacking)}")
    known = text["known_tokens"]
    usual = {field.name: float(defaults[field.name]) for field in fields(Defaults) if field.name != "size"}
    return ModelFiles(
        folder=folder,
        name=str(manifest["model"]["name"]),
        paths=paths,
        image_encoders=encoders,  # type: ignore[arg-type]  # a size has two numbers
        patch_size=int(image["patch_size"]),
        mean=tuple(map(float, image["mean"])),
        std=tuple(map(float, image["std"])),
        context=int(text["context_length"]),
        known_tokens=None if known is None else frozenset(map(int, known)),
        defaults=Defaults(size=int(image["default_size"]), **usual),
        with_preprocess=bool(manifest["export"]["with_preprocess"]),
        identity={
            "model": str(manifest["model"]["name"]),
            "weights": str(manifest["model"]["weights_sha256"]),
            "method": {"name": "gem", **manifest["model"]["options"]},
            "dtype": manifest["export"]["quantize"] or manifest["export"]["dtype"],
        },
    )
