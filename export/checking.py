"""After an export: the files are valid ONNX, run under ONNX Runtime, and give what torch gives."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gem_fast.kernels import decode_heatmaps, decode_labels
from PIL import Image
from torch import Tensor

from gem_fast.images import read_image
from gem_fast.model import GemModel
from gem_fast.preprocess import to_pixels
from gem_fast.text import embed_tokens

from .emulation import widen_bfloat16
from .manifest import files_of
from .options import ExportError

# Largest relative error (of Frobenius norms) of patch features against the engine in float32.
FEATURE_BOUNDS = {"fp32": 2e-6, "fp16": 5e-3, "bf16": 4e-2, "int8": 0.25}
LABEL_BOUNDS = {"fp32": 0.9999, "fp16": 0.99, "bf16": 0.95, "int8": 0.8}  # share of pixels with the same label
_WORDS = ["cat", "dog", "car", "tree", "house", "rocket", "apple", "umbrella"]


def check_export(model: GemModel, folder: Path, manifest: dict[str, Any]) -> dict[str, float]:
    """Run every graph of the folder and compare it with the engine.

    Returns:
        The largest differences found, by name: relative errors of features and text embeddings, absolute ones of
        cosines, heat maps and confidences, and the smallest share of pixels with the same label.

    Raises:
        ExportError: a graph is invalid or does not run, or a difference is above its bound.
    """
    kind = manifest["export"]["quantize"] or manifest["export"]["dtype"]
    found = {"text_embeddings": _text_error(model, folder)}
    words = model.encode_text(_WORDS)
    for name, entry in files_of(manifest, "image_encoder").items():
        session = open_session(folder / name, emulated=kind == "bf16")
        for label, value in _image_errors(model, session, entry, words).items():
            worst = min if label == "labels" else max
            found[label] = worst(found.get(label, value), value)
    found |= _head_errors(model, folder, words)
    bounds = {"text_embeddings": 2e-6, "cosines": 1e-6, "heatmaps": 1e-4, "confidence": 1e-4, "head_labels": 0.9999}
    bounds |= {"patch_features": FEATURE_BOUNDS[kind], "original_features": FEATURE_BOUNDS[kind]}
    bounds["labels"] = LABEL_BOUNDS[kind]
    if manifest["export"]["with_preprocess"]:
        # Pillow's fixed point may round a value the other way.
        bounds["patch_features"] = bounds["original_features"] = max(FEATURE_BOUNDS[kind], 1e-3)
        bounds["labels"] = min(LABEL_BOUNDS[kind], 0.999)
    for label, value in found.items():
        share = label.endswith("labels")
        if not (value >= bounds[label] if share else value <= bounds[label]):
            told = "agree on a share of" if share else "differ from torch by"
            raise ExportError(
                f"the exported graphs are wrong: {label} {told} {value:.3g}, the bound is {bounds[label]:g}"
            )
    return found


def open_session(path: Path, emulated: bool = False) -> Any:
    """The graph in ONNX Runtime on the CPU, after ONNX's own checks; `emulated` runs bfloat16 through float32.

    Raises:
        ExportError: the file is no valid graph, or ONNX Runtime does not run it.
    """
    import onnx
    import onnxruntime

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the checker, protobuf and shape inference raise kinds of their own
        raise ExportError(f"{path} is not a valid ONNX graph: {error}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    source: str | bytes = str(path)
    if emulated:
        model = onnx.load(str(path))
        widen_bfloat16(model)
        source = model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime {onnxruntime.__version__} can't run {path}: {error}") from error


def relative_error(result: np.ndarray, truth: Tensor) -> float:
    """Frobenius norm of the difference over that of the truth."""
    expected = truth.double().numpy()
    return float(np.linalg.norm(result.astype(np.float64) - expected) / np.linalg.norm(expected))


def sample_images(count: int = 8) -> list[Image.Image]:
    """The package's first sample images."""
    folder = files("gem_fast") / "samples"
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith((".png", ".jpg")))
    return [read_image(str(folder / name)) for name in names[:count]]


def _text_error(model: GemModel, folder: Path) -> float:
    texts = [f"a photo of a {word}." for word in _WORDS] + ["", "a rather long text " * 30]
    tokens = model.text.tokenizer(texts)
    with torch.inference_mode():
        truth = embed_tokens(model.text.tower, tokens)
    session = open_session(folder / "text_encoder.onnx")
    result = session.run(None, {"token_ids": tokens.numpy()})[0]
    longest = int(tokens[: len(_WORDS)].argmax(1).max()) + 1
    cut = session.run(None, {"token_ids": tokens[: len(_WORDS), :longest].numpy()})[0]
    return max(relative_error(result, truth), relative_error(cut, truth[: len(_WORDS)]))


def _image_errors(model: GemModel, session: Any, entry: dict[str, Any], words: Tensor) -> dict[str, float]:
    patch = model.vision.config.patch_size
    side = max(1, round(model.defaults.size / patch)) * patch
    sizes = [tuple(entry["size"])] if entry["size"] else [(side, side), (5 * patch, 7 * patch)]
    errors: dict[str, float] = {"labels": 1.0}
    for size in sizes:
        for feed, pixels in _feeds(model, size, "image" in entry["inputs"]):
            results = dict(zip(entry["outputs"], session.run(None, feed), strict=True))
            truth = model.features(pixels, original=True)
            expected = {"patch_features": truth.patches, "original_features": truth.original_patches}
            for label, result in results.items():
                theirs = expected[label]
                assert theirs is not None
                errors[label] = max(errors.get(label, 0.0), relative_error(result, theirs))
            ours = torch.from_numpy(results["patch_features"])
            errors["labels"] = min(errors["labels"], _label_agreement(model, ours, truth.patches, words))
    return errors


def _feeds(
    model: GemModel, size: tuple[int, int], with_preprocess: bool
) -> Iterator[tuple[dict[str, np.ndarray], Tensor]]:
    """Inputs of the graph, one, three and eight images, random and samples, with the pixels that the engine gets."""
    samples = sample_images()
    if not with_preprocess:
        pixels = torch.stack([to_pixels(image, size, model.mean, model.std) for image in samples])
        noise = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
        for batch in (pixels[:1], noise, pixels):
            yield {"pixels": batch.numpy()}, batch
        return
    noisy = np.random.default_rng(0).integers(0, 256, (3, 200, 150, 3), dtype=np.uint8)
    square = [image.resize((300, 300)) for image in samples]
    for pictures in (samples[:1], [Image.fromarray(each) for each in noisy], square):
        # The graph resizes columns first, as Pillow does; from release 13 on not where the height shrinks much more.
        columns_first = [image.resize((size[1], image.height), Image.Resampling.BICUBIC) for image in pictures]
        pixels = torch.stack([to_pixels(image, size, model.mean, model.std) for image in columns_first])
        yield {"image": np.stack([np.asarray(image) for image in pictures])}, pixels


def _label_agreement(model: GemModel, ours: Tensor, theirs: Tensor, words: Tensor) -> float:
    """The share of pixels that get the same label at four times the size of the grid."""
    size = (4 * ours.shape[1], 4 * ours.shape[2])
    labels = [
        torch.stack([decode_labels(c, size, logit_scale=model.defaults.logit_scale)[0] for c in cosines])
        for cosines in (torch.einsum("bhwe,te->bthw", patches, words) for patches in (ours, theirs))
    ]
    return (labels[0] == labels[1]).float().mean().item()


def _head_errors(model: GemModel, folder: Path, words: Tensor) -> dict[str, float]:
    """The whole head and its steps against the engine's decoders, at a size that is no multiple of the grid."""
    config, defaults, size = model.vision.config, model.defaults, (61, 103)
    patches = torch.randn(2, 7, 9, config.embed_dim, generator=torch.Generator().manual_seed(0))
    patches = torch.nn.functional.normalize(patches, dim=-1)
    cosines = torch.einsum("bhwe,te->bthw", patches, words)
    decoded = [decode_labels(c, size, logit_scale=defaults.logit_scale, threshold=defaults.threshold) for c in cosines]
    truth = {
        "cosines": cosines,
        "heatmaps": torch.stack([decode_heatmaps(c, size) for c in cosines]),
        "confidence": torch.stack([confidence for _, confidence in decoded]),
    }
    labels = torch.stack([labels for labels, _ in decoded]).numpy()
    encoded = {"patch_features": patches.numpy(), "text_embeddings": words.numpy()}
    scored = {"cosines": cosines.numpy()}
    target = {"output_size": np.array(size)}
    errors = {"head_labels": 1.0}
    feeds = {
        "head.onnx": {**encoded, **target},
        "cosines.onnx": encoded,
        "heatmaps.onnx": {**scored, **target},
        "labels.onnx": {**scored, **target},
    }
    for name, feed in feeds.items():
        session = open_session(folder / name)
        results = dict(zip([output.name for output in session.get_outputs()], session.run(None, feed), strict=True))
        for label, expected in truth.items():
            if label in results:
                worst = float(np.abs(results[label] - expected.numpy()).max())
                errors[label] = max(errors.get(label, 0.0), worst)
        if "labels" in results:
            errors["head_labels"] = min(errors["head_labels"], float((results["labels"] == labels).mean()))
    return errors
