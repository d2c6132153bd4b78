"""The torch engine as users hold it: images and prompts in, segmentations out."""

import hashlib
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from torch import Tensor

from .decoding import Decoder, KernelDecoder, SigmoidDecoder
from .dtypes import INT8, dtype_name
from .engine import Encode, Replica, Sizes, encoder
from .graphs import GraphedForward
from .options import Defaults
from .preprocess import Picture, ResizePolicy, input_size, normalised, normalised_tensor, resized_by_torch
from .query import Query
from .scores import score_patches, surgery_scores
from .segmenter import Segmenter
from .towers.int8 import in_int8
from .towers.layer import hash_weights, prepack
from .towers.text import TextEncoder
from .towers.vit import GemVisionTransformer, VisionFeatures
from .windows import Windows


@dataclass(frozen=True)
class GemModel(Segmenter):
    """A CLIP model with the path of GEM or another method. Make one with `gem_fast.load`.

    Attributes:
        name, source: the model and where its weights came from.
        vision: the vision transformer with both paths, on `device`.
        text: the text encoder.
        defaults: input size and thresholds when the caller names none.
        mean, std: the normalisation of pixels in 0..1.
        interpolation: bicubic or bilinear, how images are resized.
        logit_bias: of confidences by a sigmoid; None for those by the softmax over classes.
        feature_surgery: score by CLIP Surgery's feature surgery, for which CLIP's own path is finished too.
        copies_on: devices on which `segment_files` may run copies; none for its own alone.
        graphs: CUDA graphs by which the vision transformer runs, or None.
    """

    name: str
    source: str
    vision: GemVisionTransformer
    text: TextEncoder
    defaults: Defaults
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    feature_surgery: bool = False
    logit_bias: float | None = None
    copies_on: tuple[str, ...] = ()
    graphs: GraphedForward | None = None

    @property
    def device(self) -> torch.device:
        return self.vision.position_embedding.device

    @property
    def patch_size(self) -> int:
        return self.vision.config.patch_size

    @property
    def dtype(self) -> torch.dtype:
        return self.vision.position_embedding.dtype

    @overload
    def features(self, pixels: Tensor, original: Literal[False] = False) -> Tensor: ...
    @overload
    def features(self, pixels: Tensor, original: Literal[True]) -> VisionFeatures: ...
    def features(self, pixels: Tensor, original: bool = False) -> VisionFeatures | Tensor:
        """The method's patch features of normalised pixels.

        Args:
            pixels: `[B, 3, H, W]`, normalised with the model's mean and std, sides multiples of the patch.
            original: also finish the unchanged path.

        Returns:
            L2-normalised patch features `[B, h, w, E]`; with `original`, `VisionFeatures` with the unchanged path's
            patch and class features too. They are computed in `dtype`, under `torch.autocast` too.
        """
        # A compiled region can't be in inference mode.
        unrecorded = torch.no_grad() if torch.compiler.is_compiling() else torch.inference_mode()
        with unrecorded, torch.autocast(self.device.type, enabled=False):  # `dtype` says what is computed in
            if self.graphs is not None and not torch.compiler.is_compiling():
                features = self.graphs(self.vision, pixels, original)
            else:
                features = self.vision(pixels.to(self.device), original=original)
        return features if original else features.patches

    def input_size(self, image_size: tuple[int, int], size: int | None, resize: ResizePolicy | None) -> tuple[int, int]:
        return input_size(image_size, size or self.defaults.size, resize or self.usual_resize, self.patch_size)

    @property
    def usual_resize(self) -> ResizePolicy:  # type: ignore[override]  # a class constant elsewhere
        return self.defaults.resize  # type: ignore[return-value]

    @property
    def reading(self) -> dict[str, Any]:
        """What was chosen beside the method and is not the default."""
        config = self.vision.config
        chosen = {
            "pooling": config.pooling if config.pooling != "head" else None,
            "rotated": config.rotated,
            "logit_bias": self.logit_bias,
        }
        return {name: value for name, value in chosen.items() if value}

    def identity(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "weights": self.weights_sha256,
            "method": asdict(self.vision.method)
            | self.reading
            | ({"feature_surgery": True} if self.feature_surgery else {}),
            "dtype": INT8 if in_int8(self.vision) else dtype_name(self.dtype),
        }

    @cached_property
    def weights_sha256(self) -> str:
        """Of names and values of both towers' weights, in the order of their names."""
        digest = hashlib.sha256()
        for tower in (self.vision, self.text.tower):
            hash_weights(digest, tower)
        return digest.hexdigest()

    @property
    def engines(self) -> int:
        """On a GPU two, of which one copies while the other computes."""
        return {"cpu": torch.get_num_threads(), "cuda": 2}.get(self.device.type, 1)

    @property
    def decodes(self) -> bool:  # type: ignore[override]  # a class constant elsewhere
        return self.device.type == "cuda"

    def share_cores(self, engines: int) -> None:
        torch.set_num_threads(max(1, torch.get_num_threads() // engines))

    def own_stream(self) -> AbstractContextManager[Any]:
        if self.device.type != "cuda":
            return nullcontext()
        torch.cuda.synchronize(self.device)  # weights and words are there
        return torch.cuda.stream(torch.cuda.Stream(self.device))

    def to_host(self, scores: Tensor, query: Query, sizes: Sizes) -> list[np.ndarray]:
        if not (sizes and self.decodes):
            return super().to_host(scores, query, sizes)
        decoder = self._decoder(self.vision.backend)
        return decoder.label_maps(scores, len(query.classes), sizes, query.logit_scale, query.threshold)

    @property
    def devices(self) -> tuple[str, ...]:
        return self.copies_on or (str(self.device),)

    def replica(self, query: Query, windows: Windows | None = None, batch_size: int = 8) -> Replica:
        """Without the text tower, whose work is done."""
        content = io.BytesIO()
        torch.save((replace(self, text=cast(TextEncoder, None)), (query, windows, batch_size)), content)
        return partial(scorer, content.getvalue())

    def resized(self, picture: Picture, size: tuple[int, int]) -> np.ndarray:
        """By torch, several times as fast as Pillow and within 1 of 255 of it."""
        return resized_by_torch(picture, size, self.interpolation)

    def patch_features(self, pixels: np.ndarray, shape: tuple[int, int]) -> Tensor | VisionFeatures:
        """With feature surgery, CLIP's image embeddings beside them."""
        if self.device.type == "cuda":  # bytes go up, from pinned memory and beside what is computed
            there = torch.from_numpy(pixels).pin_memory().to(self.device, non_blocking=True)
            inputs = normalised_tensor(there, self.mean, self.std)
        else:
            inputs = torch.from_numpy(normalised(pixels, self.mean, self.std))
        return self.features(inputs, original=True) if self.feature_surgery else self.features(inputs)

    def scores(
        self, patches: Tensor | VisionFeatures, members: Sequence[int], words: Tensor, groups: Sequence[int]
    ) -> Tensor:
        chosen = list(members)
        if not isinstance(patches, VisionFeatures):
            return score_patches(patches[chosen], words, list(groups))
        if len(groups) == 1:
            return score_patches(patches.patches[chosen], words, list(groups))
        images = patches.original_class
        assert images is not None
        return surgery_scores(patches.patches[chosen], images[chosen], words, list(groups))

    @property
    def host_decoder(self) -> Decoder:
        return self._decoder(None if self.vision.backend == "triton" else self.vision.backend)

    @property
    def decoder(self) -> Decoder:
        return self._decoder(self.vision.backend)

    def _decoder(self, backend: str | None) -> KernelDecoder:
        if self.logit_bias is not None:
            return SigmoidDecoder(backend, self.logit_bias)
        return KernelDecoder(backend)


def scorer(content: bytes, device: str, threads: int) -> Encode:
    """What a `GemModel.replica` makes: the scores of pixels, for its query."""
    torch.set_num_threads(threads)
    model, (query, windows, batch_size) = torch.load(io.BytesIO(content), map_location=device, weights_only=False)
    prepack(model.vision)
    return encoder(model, query, windows, batch_size)
