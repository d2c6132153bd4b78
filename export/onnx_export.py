"""From a model to a folder of ONNX graphs with their manifest and tokenizer, checked against torch."""

import json
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gem_fast.errors import ExportError
from gem_fast.model import GemModel
from gem_fast.runtime.facts import ExportFacts, ImageFacts, ModelFacts, ScoreFacts, Size, TextFacts, VocabularyFacts
from gem_fast.runtime.manifest import TOKENIZER, Manifest, size_name, write_manifest
from gem_fast.templates import TEMPLATES

from .export_options import ExportOptions
from .folders import whole_folder
from .packed import packed_again
from .plain import require_float
from .usual_torch import usual_torch

if TYPE_CHECKING:
    from .graph_files import GraphFiles
    from .quantization import Ranges

_INLINE_LIMIT = 1 << 30  # bytes of weights inside a graph; a protobuf ends at 2 GiB
HEAD_STEPS = ("head", "cosines", "heatmaps", "labels")  # a graph each


@usual_torch()
def export_onnx(model: GemModel, out: str | Path, options: ExportOptions | None = None) -> Manifest:
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
    check_model(model, options)
    from .calibration import calibrated

    calibration = calibrated(model, options)
    with whole_folder(Path(out)) as folder:
        manifest = write_graphs(model, folder, options, ranges=calibration.ranges)
        if options.check:
            from .checking import check_export

            manifest = replace(manifest, check=check_export(model, folder, manifest, calibration))
        write_manifest(folder, manifest)
    return manifest


def check_model(model: GemModel, options: ExportOptions) -> None:
    """ExportError unless the graphs can be written of it and compared with it."""
    if model.dtype != torch.float32 or model.device.type != "cpu":
        raise ExportError("load the model in float32 on the CPU; the type of the export is its option dtype")
    require_float(model.vision)
    if any(each.dtype != torch.float32 for each in model.text.tower.parameters()):
        raise ExportError("load the model with its texts in float32: the text encoder of an export has no other type")
    if model.interpolation != "bicubic" and options.with_preprocess:
        raise ExportError(
            f"with_preprocess resizes images bicubically, and {model.name} takes them {model.interpolation}: "
            "leave it out"
        )


def graph_metadata(manifest: Manifest) -> dict[str, str]:
    """What each graph carries of the manifest."""
    return {"gem_fast": json.dumps(manifest.facts(), ensure_ascii=False)}


def require_packages() -> None:
    """ExportError naming the extra to install, unless what an export needs is there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise ExportError(f"an export needs {error.name}: pip install 'gem_fast[export]'") from error


def write_graphs(
    model: GemModel,
    folder: Path,
    options: ExportOptions,
    format: str = "onnx",
    ranges: "Ranges | None" = None,
) -> Manifest:
    """Write all graphs and the tokenizer into the folder; returns the manifest without the check's comparisons."""
    from .graph_files import GraphFiles
    from .tokenizer_file import tokenizer_json

    manifest = describe(model, export_facts(format, options))
    written = GraphFiles(folder, options.chosen_opset, graph_metadata(manifest))
    with packed_again(model):
        beside = [_write_image_encoders(model, written, options, ranges), _write_text_encoder(model, written, options)]
    _write_head(model, written)
    (folder / TOKENIZER).write_text(tokenizer_json(model.text.tokenizer), encoding="utf-8")
    written.add(TOKENIZER, "tokenizer")
    for path in filter(None, beside):
        written.add(path.name, "weights")
    return replace(manifest, files=written.files)


def _write_image_encoders(
    model: GemModel, written: "GraphFiles", options: ExportOptions, ranges: "Ranges | None"
) -> Path | None:
    """A graph for each size, or one for any; returns the file of weights beside them."""
    from .attention import make_layers
    from .builder import GraphBuilder, Weights
    from .image_encoder import write_image_encoder
    from .pixels import write_preprocessing

    def write(graph: GraphBuilder, size: Size | None) -> None:
        layers = make_layers(graph, options.attention, options.dtype, options.integers, ranges)
        pixels = write_preprocessing(graph, size, model.mean, model.std) if options.with_preprocess and size else None
        beside = {"original": options.original, "feature_surgery": model.feature_surgery}
        write_image_encoder(layers, model.vision, size, **beside, pixels=pixels)

    sizes = options.grid_sizes(model.defaults.size, model.vision.config.patch_size)
    several = len(sizes) > 1
    beside = weights_beside(written.folder / "image_encoder.weights", model.vision, shared=several)
    weights = Weights(beside)
    for size in sizes or (None,):
        name = f"image_encoder_{size_name(size)}.onnx" if size and several else "image_encoder.onnx"
        written.save(name, "image_encoder", weights, partial(write, size=size), size)
    return beside


def _write_text_encoder(model: GemModel, written: "GraphFiles", options: ExportOptions) -> Path | None:
    """The graph in float32; returns the file of weights beside it."""
    from .attention import make_layers
    from .builder import GraphBuilder, Weights
    from .text_encoder import write_text_encoder

    def write(graph: GraphBuilder) -> None:
        write_text_encoder(make_layers(graph, options.attention), model.text.tower)

    beside = weights_beside(written.folder / "text_encoder.weights", model.text.tower)
    written.save("text_encoder.onnx", "text_encoder", Weights(beside), write)
    return beside


def _write_head(model: GemModel, written: "GraphFiles") -> None:
    from .builder import Weights
    from .head import write_head

    for step in HEAD_STEPS:
        width = model.vision.config.embed_dim
        write = partial(write_head, step=step, embed_dim=width, feature_surgery=model.feature_surgery)
        written.save(f"{step}.onnx", step, Weights(), write)


def weights_beside(path: Path, module: torch.nn.Module, shared: bool = False) -> Path | None:
    """The file of the weights: one beside the graphs where several share it or where a graph could not hold them."""
    total = sum(4 * parameter.numel() for parameter in module.parameters())
    return path if shared or total > _INLINE_LIMIT else None


def describe(model: GemModel, export: ExportFacts, vocabulary: VocabularyFacts | None = None) -> Manifest:
    """The manifest's facts about the model and the export, without files."""
    if model.logit_bias is not None:
        raise ExportError("an export's confidence is a softmax: load the model without sigmoid")
    from gem_fast.towers.text import reads_padding

    from .tokenizer_file import around_texts, padding_id, unescapes

    config, defaults, known = model.vision.config, model.defaults, model.text.known_tokens
    tokenizer = model.text.tokenizer
    start, end = around_texts(tokenizer)
    return Manifest(
        model=ModelFacts(model.name, model.source, model.weights_sha256, asdict(model.vision.method) | model.reading),
        image=ImageFacts(
            patch_size=config.patch_size,
            embed_dim=config.embed_dim,
            mean=model.mean,
            std=model.std,
            default_size=defaults.size,
            interpolation=model.interpolation,
            resize=model.usual_resize,
        ),
        text=TextFacts(
            context_length=tokenizer.context_length,
            templates=TEMPLATES,
            known_tokens=None if known is None else tuple(sorted(known)),
            start_token=start,
            end_token=end,
            padding_token=padding_id(tokenizer),
            filled=reads_padding(model.text.tower),
            unescaped=unescapes(tokenizer),
        ),
        defaults=ScoreFacts(defaults.logit_scale, defaults.threshold, defaults.heatmap_threshold),
        export=replace(export, feature_surgery=model.feature_surgery),
        vocabulary=vocabulary,
        versions={
            package: version(package)
            for package in ("gem_fast", "torch", "open_clip_torch", "onnx", "onnxruntime", "tokenizers")
        },
    )


def export_facts(format: str, options: ExportOptions) -> ExportFacts:
    """The options of an export of graphs as the manifest has them."""
    return ExportFacts(
        format=format,
        sizes=options.sizes,
        dynamic_size=options.dynamic_size,
        opset=options.chosen_opset,
        attention=options.attention,
        dtype=options.dtype,
        quantize=options.integers,
        original=options.original,
        with_preprocess=options.with_preprocess,
    )
