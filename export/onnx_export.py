"""From a model to a folder of ONNX graphs with their manifest and tokenizer, checked against torch."""

import dataclasses
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gem_fast.errors import ExportError
from gem_fast.model import GemModel
from gem_fast.runtime.manifest import FORMAT, FORMAT_VERSION, TOKENIZER, file_sha256, size_name, write_manifest
from gem_fast.templates import TEMPLATES

from .export_options import ExportOptions
from .folders import whole_folder

_INLINE_LIMIT = 1 << 30  # bytes of weights inside a graph; a protobuf ends at 2 GiB
_HEAD_FILES = {"head": "head.onnx", "cosines": "cosines.onnx", "heatmaps": "heatmaps.onnx", "labels": "labels.onnx"}


def export_onnx(model: GemModel, out: str | Path, options: ExportOptions | None = None) -> dict[str, Any]:
    """Write the model as ONNX graphs into a folder.

    Args:
        model: loaded in float32 on the CPU; `options.dtype` is the type of the export.
        out: the folder. It appears whole; an earlier export there is replaced.
        options: see `ExportOptions`.

    Returns:
        The manifest, as `manifest.json` holds it.

    Raises:
        ExportError: a package is missing, the folder holds other files, or the graphs do not agree with torch.
    """
    options = options or ExportOptions()
    require_packages()
    if model.dtype != torch.float32 or model.device.type != "cpu":
        raise ExportError("load the model in float32 on the CPU; the type of the export is its option dtype")
    with whole_folder(Path(out)) as folder:
        manifest = write_graphs(model, folder, options)
        if options.check:
            from .checking import check_export

            manifest["check"] = check_export(model, folder, manifest)
        write_manifest(folder, manifest)
    return manifest


def require_packages() -> None:
    """ExportError naming the extra to install, unless what an export needs is there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise ExportError(f"an export needs {error.name}: pip install 'gem_fast[export]'") from error


def write_graphs(model: GemModel, folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Write all graphs and the tokenizer into the folder; returns the manifest without the check's comparisons."""
    from .builder import GraphBuilder, Weights
    from .head import write_head
    from .image_encoder import write_image_encoder
    from .layers import Layers
    from .pixels import write_preprocessing
    from .text_encoder import write_text_encoder
    from .tokenizer_file import tokenizer_json

    manifest = describe(model, options)
    shared = {name: value for name, value in manifest.items() if name not in ("files", "check")}
    opset, facts = options.chosen_opset, {"gem_fast": json.dumps(shared, ensure_ascii=False)}

    def save(name: str, role: str, weights: Weights, write: Callable[[GraphBuilder], None], **more: Any) -> None:
        graph = GraphBuilder(opset, weights)
        write(graph)
        proto = graph.model(Path(name).stem, facts)
        (folder / name).write_bytes(proto.SerializeToString())
        manifest["files"][name] = {"role": role, **more, **interface(proto)}

    sizes = options.grid_sizes(model.defaults.size, model.vision.config.patch_size)
    vision_weights = Weights(weights_beside(folder / "image_encoder.weights", model.vision, shared=len(sizes) > 1))
    for size in sizes or (None,):
        name = f"image_encoder_{size_name(size)}.onnx" if size and len(sizes) > 1 else "image_encoder.onnx"

        def write_image(graph: GraphBuilder, size: tuple[int, int] | None = size) -> None:
            layers = Layers(graph, options.attention, options.dtype, options.quantize)
            pixels = (
                write_preprocessing(graph, size, model.mean, model.std) if options.with_preprocess and size else None
            )
            write_image_encoder(layers, model.vision, size, original=options.original, pixels=pixels)

        save(name, "image_encoder", vision_weights, write_image, size=list(size) if size else None)
    text_weights = Weights(weights_beside(folder / "text_encoder.weights", model.text.tower))
    save(
        "text_encoder.onnx",
        "text_encoder",
        text_weights,
        lambda graph: write_text_encoder(Layers(graph, options.attention), model.text.tower),
    )
    embed_dim, defaults = model.vision.config.embed_dim, model.defaults
    for step, name in _HEAD_FILES.items():

        def write_step(graph: GraphBuilder, step: str = step) -> None:
            write_head(graph, step, embed_dim, logit_scale=defaults.logit_scale, threshold=defaults.threshold)

        save(name, step, Weights(), write_step)
    (folder / TOKENIZER).write_text(tokenizer_json(model.text.tokenizer), encoding="utf-8")
    manifest["files"][TOKENIZER] = {"role": "tokenizer"}
    for weights in (vision_weights, text_weights):
        if weights.external:
            manifest["files"][weights.external.name] = {"role": "weights"}
    for name, entry in manifest["files"].items():
        entry["sha256"] = file_sha256(folder / name)
    return manifest


def weights_beside(path: Path, module: torch.nn.Module, shared: bool = False) -> Path | None:
    """The file of the weights: one beside the graphs where several share it or where a graph could not hold them."""
    total = sum(4 * parameter.numel() for parameter in module.parameters())
    return path if shared or total > _INLINE_LIMIT else None


def interface(proto: Any) -> dict[str, Any]:
    """Inputs and outputs of a graph with their types and shapes, and the files of weights beside it."""
    from onnx import TensorProto

    from .builder import shape_of

    graph = proto.graph
    defaults = {initializer.name for initializer in graph.initializer}

    def listed(values: Any) -> dict[str, Any]:
        return {
            value.name: {
                "type": TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower(),
                "shape": shape_of(value),
                **({"optional": True} if value.name in defaults else {}),
            }
            for value in values
        }

    locations = {e.value for i in graph.initializer for e in i.external_data if e.key == "location"}
    return {"inputs": listed(graph.input), "outputs": listed(graph.output), "external_data": sorted(locations)}


def describe(model: GemModel, options: ExportOptions) -> dict[str, Any]:
    """The manifest's facts about the model and the export; `files` is empty."""
    config, known = model.vision.config, model.text.known_tokens
    chosen = dataclasses.asdict(options) | {"opset": options.chosen_opset}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": {
            "name": model.name,
            "source": model.source,
            "weights_sha256": model.weights_sha256,
            "options": dataclasses.asdict(model.vision.options),
        },
        "image": {
            "patch_size": config.patch_size,
            "embed_dim": config.embed_dim,
            "mean": list(model.mean),
            "std": list(model.std),
            "default_size": model.defaults.size,
        },
        "text": {
            "context_length": model.text.tokenizer.context_length,
            "templates": {name: list(texts) for name, texts in TEMPLATES.items()},
            "known_tokens": None if known is None else sorted(known),
        },
        "defaults": {
            "logit_scale": model.defaults.logit_scale,
            "threshold": model.defaults.threshold,
            "heatmap_threshold": model.defaults.heatmap_threshold,
        },
        "export": {name: value for name, value in chosen.items() if name != "check"},
        "versions": {
            package: version(package)
            for package in ("gem_fast", "torch", "open_clip_torch", "onnx", "onnxruntime", "tokenizers")
        },
        "check": None,
        "files": {},
    }
