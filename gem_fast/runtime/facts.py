"""The parts of a manifest: each checks what it holds. Needs neither torch nor onnx."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from ..dtypes import DTYPES
from ..preprocess import INTERPOLATIONS, ResizePolicy
from .interface import TensorFacts
from .typed_json import member, require

# Each format with the role of what takes its images, of which there is a file for each size.
FORMATS = {
    "onnx": "image_encoder",
    "tensorrt": "image_encoder",
    "triton-server": "image_encoder",
    "pt2": "image_encoder_pt2",
    "exported-program": "image_encoder_program",
    "segmenter": "segmenter",
}
IMAGE_ROLES = tuple(dict.fromkeys(FORMATS.values()))
QUANTIZED = ("int8", "int8-static")
ROLES = (*IMAGE_ROLES, "text_encoder", "head", "cosines", "heatmaps", "labels", "tokenizer", "weights")
Size = tuple[int, int]  # height and width
_LONGEST_SIDE = 1 << 14  # pixels
_MOST = 1 << 16  # channels, tokens of a text
_LARGEST_TOKEN = 2**31 - 1
CUTTING = "the first context_length - 1 ids, then end_token"  # as CLIP's tokenizers do
_LARGEST_SCALE = 1e6
_NARROWEST = 1e-3  # of the normalisation: less than a step of one in 255


@dataclass(frozen=True)
class ModelFacts:
    """The model that was exported.

    Attributes:
        name, source: as the engine has them.
        weights_sha256: of names and values of both towers' weights.
        options: what defines the method, its name among them.
    """

    name: str
    source: str
    weights_sha256: str
    options: Mapping[str, bool | int | float | str | None]

    def __post_init__(self) -> None:
        require(bool(self.name) and self.name.isprintable(), "name", "a name in printable characters", self.name)
        _sha256("weights_sha256", self.weights_sha256)


@dataclass(frozen=True)
class ImageFacts:
    """What the image encoder takes and gives.

    Attributes:
        patch_size: in pixels.
        embed_dim: channels of the features.
        mean, std: the normalisation of pixels in 0..1.
        default_size: side of the input in pixels, where the caller names none.
        interpolation: how images are resized.
        resize: the policy by which, where the caller names none.
    """

    patch_size: int
    embed_dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    default_size: int
    interpolation: str = "bicubic"
    resize: str = "shorter"

    def __post_init__(self) -> None:
        for name, most in (("patch_size", _LONGEST_SIDE), ("embed_dim", _MOST), ("default_size", _LONGEST_SIDE)):
            _within(name, getattr(self, name), 1, most)
        for name, known in (("interpolation", INTERPOLATIONS), ("resize", get_args(ResizePolicy))):
            require(getattr(self, name) in known, name, f"one of {', '.join(known)}", getattr(self, name))
        for name, values, least in (("mean", self.mean, 0), ("std", self.std, _NARROWEST)):
            require(len(values) == 3, name, "one for each of red, green and blue", values)
            for i, value in enumerate(values):
                _within(f"{name}[{i}]", value, least, 1)


@dataclass(frozen=True)
class TextFacts:
    """What the text encoder takes.

    Attributes:
        context_length: the most tokens in a text, with its start and end.
        templates: named ones, each with `{}` where the word goes.
        known_tokens: ids that there are embeddings for, or None for all.
        start_token, end_token: ids before and behind every text; None for none.
        padding_token: the id that fills a text up to the longest of a batch, or to the context's length.
        cutting: what becomes of a text that is too long.
        filled: all texts are filled up to the context, since the text encoder reads what lies behind them.
        unescaped: entities such as `&amp;` are read as what they stand for.
    """

    context_length: int
    templates: Mapping[str, tuple[str, ...]]
    known_tokens: tuple[int, ...] | None
    start_token: int | None
    end_token: int | None
    padding_token: int
    cutting: str = CUTTING
    filled: bool = False
    unescaped: bool = True

    def __post_init__(self) -> None:
        _within("context_length", self.context_length, 2, _MOST)
        for name in ("start_token", "end_token", "padding_token"):
            if getattr(self, name) is not None:
                _within(name, getattr(self, name), 0, _LARGEST_TOKEN)
        require(self.cutting == CUTTING, "cutting", f'"{CUTTING}"', self.cutting)
        for name, texts in self.templates.items():
            _templates(member("templates", name), texts)
        for i, token in enumerate(self.known_tokens or ()):
            _within(f"known_tokens[{i}]", token, 0, _LARGEST_TOKEN)


@dataclass(frozen=True)
class ScoreFacts:
    """What becomes of cosines where the caller names nothing, as in `Defaults`."""

    logit_scale: float
    threshold: float
    heatmap_threshold: float

    def __post_init__(self) -> None:
        _scale("logit_scale", self.logit_scale)
        for name in ("threshold", "heatmap_threshold"):
            _within(name, getattr(self, name), 0, 1)


@dataclass(frozen=True)
class VocabularyFacts:
    """The fixed vocabulary of a segmenter.

    Attributes:
        classes, background: the words of each by its name; the first class has the label 1.
        templates: the sentences that the words were put into.
        logit_scale, threshold: what the graph applies.
        with_scores: it also gives cosines.
    """

    classes: Mapping[str, tuple[str, ...]]
    background: Mapping[str, tuple[str, ...]]
    templates: tuple[str, ...]
    logit_scale: float
    threshold: float
    with_scores: bool

    def __post_init__(self) -> None:
        require(bool(self.classes), "classes", "one class or more", self.classes)
        for kind in ("classes", "background"):
            for name, words in getattr(self, kind).items():
                require(bool(name.strip()), member(kind, name), "a class with a name", name)
                right = "one word or more, none of them empty"
                require(bool(words) and all(map(str.strip, words)), member(kind, name), right, words)
        _templates("templates", self.templates)
        _scale("logit_scale", self.logit_scale)
        _within("threshold", self.threshold, 0, 1)


@dataclass(frozen=True)
class ExportFacts:
    """What the files were made with: the format, and the options of the export, of which a pt2 package has few."""

    format: str
    dtype: str
    sizes: tuple[Size, ...] = ()
    dynamic_size: bool = False
    opset: int | None = None
    attention: str | None = None
    quantize: str | None = None
    original: bool = False
    with_preprocess: bool = False
    feature_surgery: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        require(self.format in FORMATS, "format", f"one of {', '.join(FORMATS)}", self.format)
        require(self.dtype in DTYPES, "dtype", f"one of {', '.join(DTYPES)}", self.dtype)
        known = (None, *QUANTIZED)
        require(self.quantize in known, "quantize", f"null or one of {', '.join(QUANTIZED)}", self.quantize)
        if self.opset is not None:
            _within("opset", self.opset, 1, _MOST)
        for i, size in enumerate(self.sizes):
            _size(f"sizes[{i}]", size)


@dataclass(frozen=True)
class FileFacts:
    """A file of the export.

    Attributes:
        role: one of `ROLES`.
        sha256: of its bytes.
        size: height and width of an image encoder's input; None for any, and for what is no image encoder.
        inputs, outputs: of a graph.
        external_data: files of weights beside a graph, which it needs.
    """

    role: str
    sha256: str
    size: Size | None = None
    inputs: Mapping[str, TensorFacts] = field(default_factory=dict)
    outputs: Mapping[str, TensorFacts] = field(default_factory=dict)
    external_data: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.role in ROLES, "role", f"one of {', '.join(ROLES)}", self.role)
        _sha256("sha256", self.sha256)
        if self.size is not None:
            require(self.role in IMAGE_ROLES, "size", f"null for the role {self.role}", self.size)
            _size("size", self.size)


def _within(entry: str, value: float, least: float, most: float) -> None:
    require(least <= value <= most, entry, f"from {least:,} to {most:,}", value)


def _scale(entry: str, value: float) -> None:
    require(0 < value <= _LARGEST_SCALE, entry, f"above 0 and at most {_LARGEST_SCALE:g}", value)


def _templates(entry: str, texts: tuple[str, ...]) -> None:
    require(bool(texts), entry, "one template or more", texts)
    for i, text in enumerate(texts):
        require("{}" in text, f"{entry}[{i}]", "a text with {} for the word", text)


def _size(entry: str, size: Size) -> None:
    for i, side in enumerate(size):
        _within(f"{entry}[{i}]", side, 1, _LONGEST_SIDE)


def _sha256(entry: str, value: str) -> None:
    require(bool(re.fullmatch("[0-9a-f]{64}", value)), entry, "a SHA-256 in 64 hexadecimal digits", value)
