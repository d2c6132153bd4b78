"""The runtime as users hold it: an exported folder that segments images without torch."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from ..decoding import Decoder
from ..engine import Encode, Replica, encoder
from ..errors import ExportError, warn_caller
from ..images import ImageError
from ..options import Defaults
from ..preprocess import Picture, ResizePolicy, input_size, normalised, resized, unbounded_size
from ..query import Query
from ..segmenter import Segmenter
from ..windows import Layout, Windows
from .decoders import GraphDecoder, NumpyDecoder
from .folder import open_folder
from .graph import Graph
from .manifest import Manifest, size_name
from .packages import two_runtimes
from .runtime_options import RuntimeOptions
from .surgery import surgery_scores
from .text import TextEncoder, TextTokenizer

_ONE_EACH = np.array([[-1]], np.int64)  # synonyms where every text is a class


class GemRuntime(Segmenter):
    """An exported model on ONNX Runtime, with the `segment` of the torch engine.

    Graphs are loaded when they are first needed: an image encoder with the first image of its size, the text encoder
    with the first new word.

    Attributes:
        name, defaults: those of the model that was exported.
        folder, manifest: where the files lie, and what is known of them.
        sizes: heights and widths of the input that were exported, none if it may have any.
        options: how ONNX Runtime runs them.
        feature_surgery: whether scores are those of CLIP Surgery's feature surgery.
    """

    def __init__(
        self, folder: str | Path, *, verify: bool = True, feature_surgery: bool | None = None, **options: Any
    ) -> None:
        """Open an exported folder.

        Args:
            folder: what `gem-fast export --format onnx` wrote.
            verify: compare all files with their checksums in the manifest, or else only look whether they are there.
            feature_surgery: score by CLIP Surgery's feature surgery, for which the model must have been exported; None
                as it was exported.
            **options: fields of `RuntimeOptions`, such as `provider="cuda"` or `threads=4`.

        Raises:
            ExportError: the folder or an option can't be used; the message says why and what would be right.
        """
        known = RuntimeOptions.__dataclass_fields__
        if unknown := set(options) - set(known):
            raise ExportError(f"unknown options {sorted(unknown)}; known are {', '.join(known)}")
        self.options = RuntimeOptions(**options)
        if told := two_runtimes():
            warn_caller(told)
        self.manifest = open_folder(Path(folder), verify)
        self.folder = Path(folder).absolute()  # graphs are loaded later, wherever the process is by then
        self.name = self.manifest.model.name
        exported = self.manifest.export.feature_surgery
        if feature_surgery and not exported:
            raise ExportError(f"{folder} was exported without feature surgery: export the model with it")
        self.feature_surgery = exported if feature_surgery is None else feature_surgery
        encoders = self.manifest.of_role("image_encoder")
        self.sizes = tuple(entry.size for entry in encoders.values() if entry.size)
        self.defaults = usual_settings(self.manifest, self.sizes)
        self._files = {entry.size: name for name, entry in encoders.items()}
        self._encoders: dict[tuple[int, int] | None, Graph] = {}

    def __getstate__(self) -> dict[str, Any]:
        """All but the graphs, which a copy loads when it needs them."""
        loaded = {name for name, value in vars(GemRuntime).items() if isinstance(value, cached_property)}
        return {name: value for name, value in vars(self).items() if name not in loaded} | {"_encoders": {}}

    @property
    def resizes(self) -> bool:  # type: ignore[override]  # a class constant elsewhere
        return not self.manifest.export.with_preprocess

    def resized(self, picture: Picture, size: tuple[int, int]) -> np.ndarray:
        return resized(picture, size, self.manifest.image.interpolation)

    @property
    def usual_resize(self) -> str:  # type: ignore[override]
        return "nearest exported" if self.sizes else self.defaults.resize

    @property
    def patch_size(self) -> int:
        return self.manifest.image.patch_size

    def place(
        self, image_size: tuple[int, int], size: int | None, resize: ResizePolicy | None, windows: Windows | None
    ) -> tuple[tuple[int, int], Layout | None]:
        """As every engine; windows, too, are of an exported size."""
        placed = super().place(image_size, size, resize, windows)
        if windows is None or not self.sizes:
            return placed
        asked = size or self.defaults.size, resize or "shorter", self.patch_size
        crops = [windows.layout(unbounded_size(each, *asked)).crop for each in (image_size, *self.sizes)]
        if crops[0] not in self.sizes:
            listed = ", ".join(map(size_name, self.sizes))
            # If any image has a fitting input, one of an exported size has.
            raise (ImageError if {*crops} & {*self.sizes} else ValueError)(
                f"windows would be {size_name(crops[0])} (height x width), and exported were {listed}: export that "
                "size or a dynamic one, or take windows of an exported size"
            )
        return placed

    def identity(self) -> dict[str, Any]:
        model, export = self.manifest.model, self.manifest.export
        return {
            "model": model.name,
            "weights": model.weights_sha256,
            "method": {"name": "gem", **model.options} | ({"feature_surgery": True} if self.feature_surgery else {}),
            "dtype": export.quantize or export.dtype,
        }

    @property
    def host_decoder(self) -> Decoder:
        return NumpyDecoder()

    @property
    def devices(self) -> tuple[str, ...]:
        return (f"{self.options.provider}:{self.options.device_id}",)

    def replica(self, query: Query, windows: Windows | None = None, batch_size: int = 8) -> Replica:
        own = vars(self.options) | {"feature_surgery": self.feature_surgery}
        return partial(scorer, self.folder, own, (query, windows, batch_size))

    def graph(self, role: str) -> Graph:
        """The graph of a role that has a single file."""
        (name,) = self.manifest.of_role(role)
        return self._open(name)

    def _open(self, name: str, profile: Mapping[str, tuple[int | None, ...]] | None = None) -> Graph:
        entry, manifest = self.manifest.files[name], self.manifest
        made_with = manifest.versions.get("onnxruntime")
        return Graph(self.folder / name, self.options, entry.inputs, entry.outputs, profile, manifest.model, made_with)

    @cached_property
    def score_graph(self) -> Graph:
        """Patch features and text embeddings to scores."""
        return self.graph("cosines")

    @cached_property
    def decoder(self) -> Decoder:
        """On the device by the graphs, on the host in numpy, which is faster there."""
        if not self.options.on_nvidia:
            return NumpyDecoder()
        return GraphDecoder(self.graph("heatmaps"), self.graph("labels"))

    @cached_property
    def text(self) -> TextEncoder:  # type: ignore[override]  # an attribute that is made when it is first needed
        """Words to embeddings."""
        facts = self.manifest.text
        (tokenizer,) = self.manifest.of_role("tokenizer")
        return TextEncoder(self.graph("text_encoder"), TextTokenizer(self.folder / tokenizer, facts), facts)

    def image_encoder(self, shape: tuple[int, int]) -> Graph:
        """The graph for an input of that height and width."""
        size = shape if self.sizes else None
        if size not in self._encoders:
            # An engine has bounds for each size; where any may come, TensorRT makes them as they come.
            fixed = size is not None and not self.manifest.export.with_preprocess
            self._encoders[size] = self._open(self._files[size], {"pixels": (None, 3, *shape)} if fixed else {})
        return self._encoders[size]

    def input_size(self, image_size: tuple[int, int], size: int | None, resize: ResizePolicy | None) -> tuple[int, int]:
        """Height and width of the model's input for an image of that height and width, one of the exported sizes.

        Raises:
            ImageError: this image would need a size that was not exported. ValueError: every image would.
        """
        patch, sizes = self.manifest.image.patch_size, self.sizes
        policy: ResizePolicy = resize or self.defaults.resize  # type: ignore[assignment]  # the manifest knows no other
        asked = (image_size, size or self.defaults.size, policy, patch)
        if not sizes:
            return input_size(*asked)
        wanted = unbounded_size(*asked)
        if wanted in sizes:
            return wanted
        listed = ", ".join(map(size_name, sizes))
        if resize is not None:
            raise (ValueError if resize == "squash" else ImageError)(
                f"the resize policy {resize} asks for an input of {size_name(wanted)} (height x width), and exported "
                f"were {listed}: export that size or a dynamic one, or leave out resize for the nearest"
            )
        fitting = sizes
        if size is not None:
            side = max(1, round(size / patch)) * patch
            fitting = tuple(each for each in sizes if min(each) == side)
            if not fitting:
                raise ValueError(f"size {size} was not exported; the exported sizes are {listed} (height x width)")
        return min(fitting, key=lambda each: sum(abs(log(a / b)) for a, b in zip(each, wanted, strict=True)))

    def patch_features(self, pixels: np.ndarray, shape: tuple[int, int]) -> Any:
        """Patch features `[B, h, w, E]`, where the graphs run; with feature surgery and CLIP's image embeddings."""
        encoder, image = self.image_encoder(shape), self.manifest.image
        if encoder.limit and len(pixels) > encoder.limit:
            raise ValueError(f"batch_size must be at most the max_batch of the runtime, {encoder.limit}")
        inputs = {"pixels": normalised(pixels, image.mean, image.std)} if self.resizes else {"image": pixels}
        if not self.feature_surgery:
            return encoder.run(inputs, "patch_features", stay=True)[0]
        features, images = encoder.run(inputs, "patch_features", "image_embedding", stay=True)
        return features, images

    def scores(self, patches: Any, members: Sequence[int], words: np.ndarray, groups: Sequence[int]) -> np.ndarray:
        features, images = patches if isinstance(patches, tuple) else (patches, None)
        surgery = images is not None and len(groups) > 1
        rows = synonym_rows(groups) if max(groups) > 1 and not surgery else _ONE_EACH
        inputs = {"patch_features": features, "text_embeddings": words, "synonyms": rows}
        cosines = self.score_graph.run(inputs, "cosines")[0].numpy()[list(members)]
        return surgery_scores(cosines, images.numpy()[list(members)], words, groups) if surgery else cosines


def scorer(
    folder: Path, own: Mapping[str, Any], asked: tuple[Query, Windows | None, int], device: str, threads: int
) -> Encode:
    """What a `GemRuntime.replica` makes: the scores of pixels, for its query, on the provider's device."""
    return encoder(GemRuntime(folder, verify=False, **{**own, "threads": own["threads"] or threads}), *asked)


def usual_settings(manifest: Manifest, sizes: Sequence[tuple[int, int]]) -> Defaults:
    """The model's own; for the input's size the first that was exported, where its own was not."""
    size, shorter = manifest.image.default_size, [min(each) for each in sizes]
    usual = size if not shorter or size in shorter else shorter[0]
    return Defaults(usual, resize=manifest.image.resize, **vars(manifest.defaults))


def synonym_rows(groups: Sequence[int]) -> np.ndarray:
    """Rows of each class's words, `[classes, most]`, the last repeated up to the longest.

    `groups` has the number of words of each class.
    """
    last = np.cumsum(groups) - 1
    first = last - np.array(groups) + 1
    return np.minimum(first[:, None] + np.arange(max(groups)), last[:, None]).astype(np.int64)
