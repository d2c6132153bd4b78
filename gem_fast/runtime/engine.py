"""The runtime as users hold it: an exported folder that segments images without torch."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import OrtValue
from PIL import Image

from ..decoding import Decoder
from ..errors import ExportError
from ..images import ImageError
from ..preprocess import ResizePolicy, input_size, normalised, unbounded_size
from ..segmenter import Segmenter
from .decoders import GraphDecoder, NumpyDecoder
from .folder import open_folder
from .graph import Graph
from .manifest import size_name
from .runtime_options import RuntimeOptions
from .text import TextEncoder, TextTokenizer


class GemRuntime(Segmenter):
    """An exported model on ONNX Runtime, with the `segment` of the torch engine.

    Graphs are loaded when they are first needed: an image encoder with the first image of its size, the text encoder
    with the first new word.

    Attributes:
        name, defaults: those of the model that was exported.
        files: what was exported.
        options: how ONNX Runtime runs them.
    """

    def __init__(self, folder: str | Path, *, verify: bool = True, **options: Any) -> None:
        """Open an exported folder.

        Args:
            folder: what `gem-fast export --format onnx` wrote.
            verify: compare all files with their checksums in the manifest, or else only look whether they are there.
            **options: fields of `RuntimeOptions`, such as `provider="cuda"` or `threads=4`.

        Raises:
            ExportError: the folder or an option can't be used; the message says why and what would be right.
        """
        known = RuntimeOptions.__dataclass_fields__
        if unknown := set(options) - set(known):
            raise ExportError(f"unknown options {sorted(unknown)}; known are {', '.join(known)}")
        self.options = RuntimeOptions(**options)
        self.files = open_folder(Path(folder), verify)
        self.name = self.files.name
        self.defaults = self.files.defaults
        shorter = [min(size) for size in self.files.sizes]
        if shorter and self.defaults.size not in shorter:
            self.defaults = replace(self.defaults, size=shorter[0])
        self._encoders: dict[tuple[int, int] | None, Graph] = {}

    @cached_property
    def scorer(self) -> Graph:
        """Patch features and text embeddings to cosines."""
        inputs = {"patch_features": ("float", 4), "text_embeddings": ("float", 2), "synonyms": ("int64", 2)}
        return Graph(self.files.paths["cosines"], self.options, inputs, ("cosines",))

    @cached_property
    def decoder(self) -> Decoder:
        """On the device by the graphs, on the host in numpy, which is faster there."""
        if not self.options.on_nvidia:
            return NumpyDecoder()
        inputs = {"cosines": ("float", 4), "output_size": ("int64", 1)}
        settings = {"logit_scale": ("float", 0), "threshold": ("float", 0)}
        paths = self.files.paths
        return GraphDecoder(
            Graph(paths["heatmaps"], self.options, inputs, ("heatmaps",)),
            Graph(paths["labels"], self.options, inputs | settings, ("labels", "confidence")),
        )

    @cached_property
    def text(self) -> TextEncoder:
        """Words to embeddings."""
        paths = self.files.paths
        graph = Graph(paths["text_encoder"], self.options, {"token_ids": ("int64", 2)}, ("text_embeddings",))
        return TextEncoder(graph, TextTokenizer(paths["tokenizer"], self.files.context), self.files.known_tokens)

    def image_encoder(self, shape: tuple[int, int]) -> Graph:
        """The graph for an input of that height and width."""
        size = shape if self.files.sizes else None
        if size not in self._encoders:
            inputs = {"image": ("uint8", 4)} if self.files.with_preprocess else {"pixels": ("float", 4)}
            # An engine has bounds for each size; where any may come, TensorRT makes them as they come.
            fixed = size is not None and not self.files.with_preprocess
            profile = {"pixels": (None, 3, *shape)} if fixed else {}
            path = self.files.image_encoders[size]
            self._encoders[size] = Graph(path, self.options, inputs, ("patch_features",), profile)
        return self._encoders[size]

    def input_size(self, image_size: tuple[int, int], size: int | None, resize: ResizePolicy | None) -> tuple[int, int]:
        """Height and width of the model's input for an image of that height and width, one of the exported sizes.

        Raises:
            ImageError: this image would need a size that was not exported. ValueError: every image would.
        """
        patch, sizes = self.files.patch_size, self.files.sizes
        asked = (image_size, size or self.defaults.size, resize or "shorter", patch)
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

    def embed(self, words: Sequence[str], templates: tuple[str, ...]) -> np.ndarray:
        return self.text.encode(words, templates)

    def patch_features(self, pictures: Sequence[Image.Image], shape: tuple[int, int]) -> list[OrtValue]:
        """Patch features `[n, h, w, E]` where the graphs run, of successive images that could go together."""
        encoder, files = self.image_encoder(shape), self.files
        if encoder.limit and len(pictures) > encoder.limit:
            raise ValueError(f"batch_size must be at most the max_batch of the runtime, {encoder.limit}")
        if not files.with_preprocess:
            pixels = np.stack([normalised(picture, shape, files.mean, files.std) for picture in pictures])
            return encoder.run({"pixels": pixels}, "patch_features", stay=True)
        batches = [np.stack([np.asarray(p) for p in alike]) for _, alike in groupby(pictures, lambda p: p.size)]
        return [value for batch in batches for value in encoder.run({"image": batch}, "patch_features", stay=True)]

    def cosines(
        self, patches: list[OrtValue], members: Sequence[int], words: np.ndarray, groups: Sequence[int]
    ) -> np.ndarray:
        inputs: dict[str, Any] = {"text_embeddings": words}
        if max(groups) > 1:
            inputs["synonyms"] = synonym_rows(groups)
        every = [self.scorer.run({"patch_features": part, **inputs}, "cosines")[0].numpy() for part in patches]
        return np.concatenate(every)[list(members)]


def synonym_rows(groups: Sequence[int]) -> np.ndarray:
    """Rows of each class's words, `[classes, most]`, the last repeated up to the longest.

    `groups` has the number of words of each class.
    """
    last = np.cumsum(groups) - 1
    first = last - np.array(groups) + 1
    return np.minimum(first[:, None] + np.arange(max(groups)), last[:, None]).astype(np.int64)
