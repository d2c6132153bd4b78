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

_DECODED_ERROR = 1e-5  # relative; the logit scale enlarges the rounding of cosines


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
    """Each graph's outputs against the engine's features and torch's decoding, as `check_export` does."""
    from .checked_session import open_session
    from .checking import feeds
    from .comparison import compare
    from .plain import plain_torch
    from .segmenter import decoded

    made = manifest.export
    kind = made.quantize or made.dtype
    plain = plain_torch(model.vision, kind, calibration.ranges) if kind != "float32" else None

    @torch.inference_mode()
    def outputs(vision: Any, pixels: torch.Tensor, size: Size) -> dict[str, torch.Tensor]:
        weighted = model.feature_surgery and len(query.groups) > 1
        features = vision(pixels, original=weighted)
        known = (query.words, query.groups)
        if weighted:
            scores = surgery_scores(features.patches.float(), features.original_class.float(), *known)
        else:
            scores = score_patches(features.patches.float(), *known)
        labels, confidence = decoded(scores, size, query)
        return {"labels": labels, "confidence": confidence, "scores": scores[:, : len(query.classes)]}

    for name, entry in manifest.of_role("segmenter").items():
        session = open_session(folder / name, emulated=kind == "bfloat16")
        assert entry.size is not None
        for told, feed, pixels in feeds(model, entry.size, made.with_preprocess, calibration):
            results = dict(zip(entry.outputs, session.run(None, feed), strict=True))
            truth = outputs(model.vision, pixels, entry.size)
            alone = outputs(plain, pixels, entry.size) if plain else None
            where: dict[str, Any] = {"graph": name, "size": size_name(entry.size), "batch": len(pixels), "input": told}
            labels = torch.as_tensor(results.pop("labels"))
            for output, result in results.items():
                found = replace(compare(result, truth[output], output=output, **where), bound=_DECODED_ERROR)
                theirs = alone and compare(alone[output], truth[output], output=output, **where)
                if output == "confidence":
                    found = replace(found, labels=_share(labels, truth["labels"]))
                    theirs = theirs and alone and replace(theirs, labels=_share(alone["labels"], truth["labels"]))
                yield found.loosened(theirs) if theirs else found


def _share(labels: torch.Tensor, truth: torch.Tensor) -> float:
    return (labels == truth).double().mean().item()
