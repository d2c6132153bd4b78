"""The manifest of an exported folder: what the graphs are of, and how to use them. Needs neither torch nor onnx."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ExportError
from .agreement import Comparison
from .facts import (
    FORMATS,
    IMAGE_ROLES,
    ROLES,
    ExportFacts,
    FileFacts,
    ImageFacts,
    ModelFacts,
    ScoreFacts,
    Size,
    TextFacts,
    VocabularyFacts,
)
from .interface import TensorFacts, check_tensors, head_and_text, image_encoder, segmenter
from .typed_json import EntryError, from_json, member, parse_json, read_json, require, shown

FORMAT = "gem_fast.export"
FORMAT_VERSION = 4
_BEFORE_RESIZE = 3  # the version whose images all had the policy shorter, and no word of it
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
_LONGEST_VERSION = 100  # characters: it is read as numbers, and told in errors
_LIMIT = 16 << 20  # bytes of a manifest, which has room for a vocabulary of a million tokens


@dataclass(frozen=True)
class Manifest:
    """All that is known of an exported folder.

    Attributes:
        versions: of the packages that the export was made with.
        vocabulary: of a segmenter; None for what takes any words.
        check: every comparison with torch; None if there was none.
        files: by their names, as paths below the folder.
    """

    model: ModelFacts
    image: ImageFacts
    text: TextFacts
    defaults: ScoreFacts
    export: ExportFacts
    versions: Mapping[str, str]
    vocabulary: VocabularyFacts | None = None
    check: tuple[Comparison, ...] | None = None
    files: Mapping[str, FileFacts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for package, version in self.versions.items():
            right = f"a version of up to {_LONGEST_VERSION} printable characters"
            fits = len(version) <= _LONGEST_VERSION and version.isprintable()
            require(fits, member("versions", package), right, version)
        worded = self.export.format == "segmenter"
        right = "an object" if worded else "null"
        there = self.vocabulary is not None
        require(there == worded, "vocabulary", f"{right} in the format {self.export.format}", self.vocabulary and {})
        require(not (worded and self.export.dynamic_size), "export.dynamic_size", "false for a segmenter", True)
        for name, entry in self.files.items():
            try:
                self._check_file(name, entry)
            except EntryError as error:
                raise error.inside(member("files", name)) from None
        for role in ROLES:
            named = self.of_role(role)
            sizes = {entry.size for entry in named.values()}  # a single one but for image encoders
            if role != "weights" and len(sizes) < len(named):
                each = " for each size" if role in IMAGE_ROLES else ""
                raise EntryError("files", f"must have one file of the role {role}{each}, got {len(named)}")

    def of_role(self, role: str) -> dict[str, FileFacts]:
        """The files of a role by their names."""
        return {name: entry for name, entry in self.files.items() if entry.role == role}

    def facts(self) -> dict[str, Any]:
        """What each graph carries in its metadata: all but the files and the check."""
        return {name: value for name, value in to_json(self).items() if name not in ("check", "files")}

    def _check_file(self, name: str, entry: FileFacts) -> None:
        right = "a path below the folder, with / between its parts and without .."
        require(_below(name) and name != MANIFEST, "", right, name)
        for i, beside in enumerate(entry.external_data):
            found = self.files.get(f"{name.rpartition('/')[0]}/{beside}".removeprefix("/"))
            right = "a file of the role weights beside the graph"
            there = found is not None and found.role == "weights" and "/" not in beside
            require(there, f"external_data[{i}]", right, beside)
        if entry.role in IMAGE_ROLES:
            taken = FORMATS[self.export.format]
            require(entry.role == taken, "role", f"{taken} in the format {self.export.format}", entry.role)
            dynamic, patch = self.export.dynamic_size, self.image.patch_size
            right = "null, as dynamic_size is true" if dynamic else f"two multiples of the patch, {patch}"
            sized = entry.size is not None and not any(side % patch for side in entry.size)
            require(entry.size is None if dynamic else sized, "size", right, entry.size and size_name(entry.size))
        inputs, outputs = self._interface(entry)
        check_tensors(inputs, entry.inputs, "inputs")
        check_tensors(outputs, entry.outputs, "outputs")

    def _interface(self, entry: FileFacts) -> tuple[Mapping[str, TensorFacts], Mapping[str, TensorFacts]]:
        """What a file of that role takes and gives; nothing for what is no graph."""
        image, made = self.image, self.export
        if entry.role == "image_encoder":
            options = {name: getattr(made, name) for name in ("original", "with_preprocess", "feature_surgery")}
            return image_encoder(image.embed_dim, image.patch_size, entry.size, **options)
        if entry.role == "segmenter":
            assert entry.size is not None
            assert self.vocabulary is not None
            classes, with_scores = len(self.vocabulary.classes), self.vocabulary.with_scores
            options = {"with_preprocess": made.with_preprocess, "with_scores": with_scores}
            return segmenter(image.patch_size, entry.size, classes=classes, **options)
        return head_and_text(image.embed_dim, made.feature_surgery).get(entry.role, ({}, {}))


def _below(name: str) -> bool:
    """Whether it is the plain path of a file below a folder, on every system."""
    return name.isprintable() and not re.search(r'[\\:*?"<>|]', name) and not {"", ".", ".."} & {*name.split("/")}


def to_json(manifest: Manifest) -> dict[str, Any]:
    return {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(manifest)}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an exported folder.

    Raises:
        ExportError: there is none, or it is damaged or of another format; the message names the entry and what would be
            right.
    """
    path = Path(folder) / MANIFEST
    try:
        found = read_json(path, _LIMIT)
        if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
            raise ExportError(f"{path} is not the manifest of an exported model")
        version = found.pop("format_version", None)
        if version not in (_BEFORE_RESIZE, FORMAT_VERSION):
            raise ExportError(
                f"{path} has format version {shown(version)}, this gem_fast reads {_BEFORE_RESIZE} and "
                f"{FORMAT_VERSION}; export the model again"
            )
        if version == _BEFORE_RESIZE and isinstance(image := found.get("image"), dict):
            image.setdefault("resize", "shorter")
        manifest: Manifest = from_json(Manifest, found)
    except ExportError:
        raise
    except OSError as error:
        raise ExportError(f"{folder} is no exported model: {MANIFEST} can't be read ({error.strerror})") from error
    except ValueError as error:
        raise ExportError(f"{path} is damaged: {error}; export the model again") from error
    return manifest


def is_manifest(path: Path) -> bool:
    """Whether a file is the manifest of an export, of any version."""
    try:
        found = read_json(path, _LIMIT)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into the folder; ValueError if it could not be read again."""
    content = json.dumps(to_json(manifest), indent=1, ensure_ascii=False)
    read = parse_json(content)
    from_json(Manifest, {name: value for name, value in read.items() if name not in ("format", "format_version")})
    (folder / MANIFEST).write_text(content + "\n", encoding="utf-8")


def size_name(size: Size) -> str:
    """As in file names: 448x640, height first."""
    return f"{size[0]}x{size[1]}"
