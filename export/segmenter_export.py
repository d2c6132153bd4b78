"""From a model and a fixed vocabulary to a folder with one graph, checked against torch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gem_fast.errors import ExportError
from gem_fast.query import Query
from gem_fast.runtime.agreement import Comparison
from gem_fast.runtime.facts import Size, VocabularyFacts
from gem_fast.runtime.manifest import Manifest, size_name, write_manifest
from gem_fast.scores import score_patches, surgery_scores

from .export_options import ExportOptions
from .folders import whole_folder
from .onnx_export import check_model, describe, export_facts, graph_metadata, require_packages, weights_beside
from .packed import packed_again
from .usual_torch import usual_torch

if TYPE_CHECKING:
    from gem_fast.model import GemModel

    from .builder import GraphBuilder
    from .calibration import Calibration
    from .graph_files import GraphFiles
    from .quantization import Ranges


@usual_torch()
def export_segmenter(
    model: "GemModel", out: str | Path, query: Query, options: ExportOptions | None = None, with_scores: bool = False
) -> Manifest:
    """Write `segmenter.onnx`, which labels images by a fixed vocabulary; for several sizes a graph of each.

    Args:
        model: loaded in float32 on the CPU.
        out: the folder. It appears whole; an earlier export there is replaced.
        query: what `model.query` makes of classes, background words and settings.
        options: see `ExportOptions`, of which `dynamic_size` and `original` mean nothing here.
        with_scores: a third output with the cosines of patches and classes.

    Raises:
        ExportError: an option doesn't fit, or the graph does not agree with torch.
    """
    from .calibration import calibrated
    from .graph_files import GraphFiles

    options = options or ExportOptions()
    require_packages()
    check_model(model, options)
    if options.dynamic_size or options.original:
        raise ExportError("a segmenter has fixed sizes and one path; leave out dynamic_size and original")
    manifest = describe(model, export_facts("segmenter", options), _facts(query, with_scores))
    calibration = calibrated(model, options)
    with whole_folder(Path(out)) as folder:
        written = GraphFiles(folder, options.chosen_opset, graph_metadata(manifest))
        _write_graphs(model, written, query, options, with_scores, calibration.ranges)
        manifest = replace(manifest, files=written.files)
        if options.check:
            from .comparison import agreed

            manifest = replace(manifest, check=agreed(_compared(model, folder, manifest, query, calibration)))
        write_manifest(folder, manifest)
    return manifest


def _facts(query: Query, with_scores: bool) -> VocabularyFacts:
    return VocabularyFacts(
        classes={each.name: each.synonyms for each in query.classes},
        background={each.name: each.synonyms for each in query.background},
        templates=query.templates,
        logit_scale=query.logit_scale,
        threshold=query.threshold,
        with_scores=with_scores,
    )


def _write_graphs(
    model: "GemModel",
    written: "GraphFiles",
    query: Query,
    options: ExportOptions,
    with_scores: bool,
    ranges: "Ranges | None",
) -> None:
    from onnx import TensorProto

    from .attention import make_layers
    from .builder import Weights
    from .pixels import write_preprocessing
    from .segmenter import write_segmenter

    def write(graph: "GraphBuilder", size: Size) -> None:
        layers = make_layers(graph, options.attention, options.dtype, options.integers, ranges)
        if options.with_preprocess:
            pixels = write_preprocessing(graph, size, model.mean, model.std)
        else:
            pixels = graph.input("pixels", TensorProto.FLOAT, ["batch", 3, *size])
        chosen = {"with_scores": with_scores, "feature_surgery": model.feature_surgery}
        write_segmenter(layers, model.vision, size, query, pixels, **chosen)

    sizes = options.grid_sizes(model.defaults.size, model.vision.config.patch_size)
    several = len(sizes) > 1
    beside = weights_beside(written.folder / "segmenter.weights", model.vision, shared=several)
    weights = Weights(beside)
    with packed_again(model):
        for size in sizes:
            name = f"segmenter_{size_name(size)}.onnx" if several else "segmenter.onnx"
            written.save(name, "segmenter", weights, lambda graph, size=size: write(graph, size), size)  # type: ignore[misc]
    if beside:
        written.add(beside.name, "weights")


def _compared(
    model: "GemModel", folder: Path, manifest: Manifest, query: Query, calibration: "Calibration"
) -> Iterator[Comparison]:
    """The features inside each graph against the engine's, as `check_export` does, and what it decodes of them."""
    from .checked_session import open_session
    from .checking import feeds
    from .comparison import OUTPUTS, compare_encoded, label_share
    from .plain import plain_torch

    made = manifest.export
    kind = made.quantize or made.dtype
    plain = plain_torch(model.vision, kind, calibration.ranges) if kind != "float32" else None
    shown = OUTPUTS[: 2 if made.feature_surgery and len(query.groups) > 1 else 1]
    for name, entry in manifest.of_role("segmenter").items():
        assert entry.size is not None
        session = open_session(folder / name, emulated=kind == "bfloat16", shown=shown)
        share = label_share(query.words, entry.size)
        for told, feed, pixels in feeds(model, entry.size, made.with_preprocess, calibration):
            results = dict(zip((*entry.outputs, *shown), session.run(None, feed), strict=True))
            features = {output: results.pop(output) for output in shown}
            where: dict[str, Any] = {"graph": name, "size": size_name(entry.size), "batch": len(pixels), "input": told}
            yield from compare_encoded(features, pixels, model.vision, plain, share, **where)
            yield from _decoded(results, features, query, **where)


@torch.inference_mode()
def _decoded(results: dict[str, Any], features: dict[str, Any], query: Query, **where: Any) -> Iterator[Comparison]:
    """The graph's outputs against torch's of the graph's own features."""
    from .checking import DECODED_ERROR
    from .comparison import compare
    from .segmenter import confidences, right_labels

    known = query.words, query.groups
    patches, *images = map(torch.from_numpy, features.values())
    scores = surgery_scores(patches, images[0], *known) if images else score_patches(patches, *known)
    labels = torch.from_numpy(results.pop("labels"))
    sure = confidences(scores, (labels.shape[1], labels.shape[2]), query)
    truth = {"confidence": sure.amax(1), "scores": scores[:, : len(query.classes)]}
    right = right_labels(labels, sure, query, DECODED_ERROR)
    for output, result in results.items():
        found = replace(compare(result, truth[output], output=output, **where), bound=DECODED_ERROR)
        yield replace(found, labels=right) if output == "confidence" else found
