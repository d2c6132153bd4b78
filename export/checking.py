"""After an export: the files are valid ONNX, run under ONNX Runtime, and give what torch gives."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gem_fast.kernels import decode_heatmaps, decode_labels
from PIL import Image
from torch import Tensor

from gem_fast.images import read_image
from gem_fast.model import GemModel
from gem_fast.options import Defaults
from gem_fast.preprocess import normalised, to_pixels
from gem_fast.runtime.agreement import Comparison
from gem_fast.runtime.manifest import Manifest, size_name
from gem_fast.scores import surgery_scores
from gem_fast.towers.text import embed_tokens, reads_padding

from .calibration import Calibration
from .checked_session import open_session
from .comparison import agreed, compare, compare_encoded, label_share
from .plain import plain_torch
from .tokenizer_file import padding_id

_WORDS = ["cat", "dog", "car", "tree", "house", "rocket", "apple", "umbrella"]
DECODED_ERROR = 1e-5  # relative; contrast and logit scale enlarge the rounding of cosines


def check_export(model: GemModel, folder: Path, manifest: Manifest, calibration: Calibration) -> tuple[Comparison, ...]:
    """Run every graph of the folder and compare it with the engine in float32, on images of the calibration too.

    In another type an error may be twice what PyTorch alone shows in that type on the same input.

    Raises:
        ExportError: a graph is invalid or does not run, or a difference is above its bound.
    """
    words = model.encode_text(_WORDS)
    return agreed(
        chain(
            _image_encoders(model, folder, manifest, words, calibration),
            _text_encoder(model, folder / "text_encoder.onnx"),
            _head(model, folder, words),
        )
    )


def sample_images(count: int = 8) -> list[Image.Image]:
    """The package's first sample images."""
    folder = files("gem_fast") / "samples"
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith((".png", ".jpg")))
    return [read_image(str(folder / name)) for name in names[:count]]


def _image_encoders(
    model: GemModel, folder: Path, manifest: Manifest, words: Tensor, calibration: Calibration
) -> Iterator[Comparison]:
    made = manifest.export
    kind = made.quantize or made.dtype
    plain = plain_torch(model.vision, kind, calibration.ranges) if kind != "float32" else None
    patch = model.vision.config.patch_size
    side = max(1, round(model.defaults.size / patch)) * patch
    for name, entry in manifest.of_role("image_encoder").items():
        session = open_session(folder / name, emulated=kind == "bfloat16")
        for size in [entry.size] if entry.size else [(side, side), (5 * patch, 7 * patch)]:
            labels = label_share(words, size)
            for told, feed, pixels in feeds(model, size, made.with_preprocess, calibration):
                results = dict(zip(entry.outputs, session.run(None, feed), strict=True))
                where: dict[str, Any] = {"graph": name, "size": size_name(size), "batch": len(pixels), "input": told}
                yield from compare_encoded(results, pixels, model.vision, plain, labels, **where)


def feeds(
    model: GemModel, size: tuple[int, int], with_preprocess: bool, calibration: Calibration
) -> Iterator[tuple[str, dict[str, np.ndarray], Tensor]]:
    """Inputs of the graph with the pixels that the engine gets: one, three and eight images, samples and noise.

    Where there is a calibration they are its images: outside its ranges a graph promises nothing.
    """
    own = calibration.ranges is None
    samples = sample_images() if own else list(calibration.images)
    one, several = ("sample", "samples") if own else ("calibration", "calibration")
    if not with_preprocess:
        pixels = torch.stack([to_pixels(image, size, model.mean, model.std) for image in samples])
        noise = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
        for told, batch in ((one, pixels[:1]), ("noise", noise[: 3 * own]), (several, pixels)):
            if len(batch):
                yield told, {"pixels": batch.numpy()}, batch
        return
    noisy = np.random.default_rng(0).integers(0, 256, (3, 200, 150, 3), dtype=np.uint8)
    square = [image.resize((300, 300)) for image in samples]
    for told, pictures in ((one, samples[:1]), ("noise", noisy[: 3 * own]), (several, square)):
        if not len(pictures):
            continue
        resized = np.stack([model.resized(picture, size) for picture in pictures])
        pixels = torch.from_numpy(normalised(resized, model.mean, model.std))
        yield told, {"image": np.stack([np.asarray(picture) for picture in pictures])}, pixels


def _text_encoder(model: GemModel, path: Path) -> Iterator[Comparison]:
    texts = [f"a photo of a {word}." for word in _WORDS]
    tokens = model.text.tokenizer([*texts, "", "a rather long text " * 30])
    with torch.inference_mode():
        truth = embed_tokens(model.text.tower, tokens)
    session = open_session(path)
    written = (tokens[: len(texts)] != padding_id(model.text.tokenizer)).any(0).nonzero()
    longest = tokens.shape[1] if reads_padding(model.text.tower) else int(written.max()) + 1
    for told, ids in (("texts", tokens), ("cut texts", tokens[: len(texts), :longest])):
        result = session.run(None, {"token_ids": ids.numpy()})[0]
        where: dict[str, Any] = {"graph": path.name, "output": "text_embeddings", "size": None}
        yield compare(result, truth[: len(ids)], **where, batch=len(ids), input=told)


def _head(model: GemModel, folder: Path, words: Tensor) -> Iterator[Comparison]:
    """The whole head and its steps against the engine's decoders, at a size that is no multiple of the grid."""
    config, defaults, size = model.vision.config, model.defaults, (61, 103)
    patches = torch.randn(2, 7, 9, config.embed_dim, generator=torch.Generator().manual_seed(0))
    patches = torch.nn.functional.normalize(patches, dim=-1)
    images = torch.nn.functional.normalize(torch.randn(2, config.embed_dim, generator=torch.Generator().manual_seed(1)))
    cosines = torch.einsum("bhwe,te->bthw", patches, words)
    steps = whole = _decoded(cosines, size, defaults)
    features = {"patch_features": patches.numpy(), "text_embeddings": words.numpy(), "synonyms": np.array([[-1]])}
    image = {}
    if model.feature_surgery:
        whole = _decoded(surgery_scores(patches, images, words, [1] * len(words)), size, defaults)
        image = {"image_embedding": images.numpy()}
    scored = {"cosines": cosines.numpy()}
    target = {"output_size": np.array(size)}
    settings = {name: np.array(getattr(defaults, name), np.float32) for name in ("logit_scale", "threshold")}
    feeds = {
        "cosines.onnx": features,
        "heatmaps.onnx": {**scored, **target},
        "labels.onnx": {**scored, **target, **settings},
        "head.onnx": {**features, **image, **target, **settings},
    }
    for name, feed in feeds.items():
        session, truth = open_session(folder / name), whole if name == "head.onnx" else steps
        results = dict(zip([output.name for output in session.get_outputs()], session.run(None, feed), strict=True))
        labels = results.pop("labels", None)
        for output, result in results.items():
            found = compare(result, truth[output], graph=name, output=output, size="7x9", batch=2, input="noise")
            if output == "confidence":
                found = replace(found, labels=float((labels == truth["labels"].numpy()).mean()))
            yield found if output == "cosines" else replace(found, bound=DECODED_ERROR)


def _decoded(scores: Tensor, size: tuple[int, int], defaults: Defaults) -> dict[str, Tensor]:
    """What the engine's decoders make of scores `[B, P, h, w]`, and these, by the outputs of the head."""
    scale, least = defaults.logit_scale, defaults.threshold
    decoded = [decode_labels(each, size, logit_scale=scale, threshold=least) for each in scores]
    return {
        "cosines": scores,
        "heatmaps": torch.stack([decode_heatmaps(each, size) for each in scores]),
        "labels": torch.stack([labels for labels, _ in decoded]),
        "confidence": torch.stack([confidence for _, confidence in decoded]),
    }
