"""`--format tensorrt`: graphs that TensorRT takes, and engines where it can build them."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gem_fast.errors import ExportError
from gem_fast.runtime.facts import TextFacts
from gem_fast.runtime.folder import file_sha256
from gem_fast.runtime.manifest import Manifest, write_manifest
from gem_fast.runtime.typed_json import from_json, read_json, shown

from ..export_options import ExportOptions
from ..folders import whole_folder
from ..usual_torch import usual_torch
from .build import (
    TIMING_CACHE,
    Extent,
    Profile,
    build_engine,
    input_shapes,
    stored_timings,
    trtexec_line,
    why_not_here,
)

if TYPE_CHECKING:
    from onnx import ModelProto

    from gem_fast.model import GemModel

ATTENTIONS = {"onnx": "tensorrt", "plugin": "plugin", "portable": "portable"}
PROFILES = "tensorrt.json"
_GRAPHS = ("image_encoder", "text_encoder")  # that engines are built of
_TEXTS = (1, 64, 256)
_LIMIT = 1 << 20  # bytes of the file of profiles


@dataclass(frozen=True, slots=True)
class TensorRTExport:
    """What was written.

    Attributes:
        manifest: as `manifest.json` holds it.
        engines: the engines that were built here.
        missing: why none was, and what to install; None if they were.
        commands: what builds them on another machine, in the exported folder.
    """

    manifest: Manifest
    engines: tuple[str, ...]
    missing: str | None
    commands: tuple[str, ...]


@usual_torch()
def export_tensorrt(
    model: "GemModel", out: Path, options: ExportOptions, max_batch: int = 8, tell: Callable[[str], None] = print
) -> TensorRTExport:
    """Write the graphs, what builds their engines, and the engines if TensorRT and a GPU are here.

    Args:
        model: loaded in float32 on the CPU; `options.dtype` is the type of the export.
        out: the folder. It appears whole; an earlier export there is replaced, but its timing cache is kept.
        options: `attention` is `"onnx"` (the default of this format), `"plugin"` or `"portable"`. With several `sizes`,
            one engine serves them all, with an optimisation profile for each.
        max_batch: most images in a run, and the number that the engine is tuned for.
        tell: called with a line before each long step.

    Raises:
        ExportError: an option doesn't fit, TensorRT does not take a graph, or the graphs do not agree with torch.
    """
    from ..calibration import Calibration
    from ..checking import check_export
    from ..onnx_export import check_model, require_packages, write_graphs

    require_packages()
    check_model(model, options)
    if options.attention not in ATTENTIONS:
        raise ExportError(f"attention for tensorrt must be one of {', '.join(ATTENTIONS)}, got {options.attention!r}")
    if options.dynamic_size:
        raise ExportError("name the sizes for tensorrt, which tunes an engine for each; dynamic_size leaves them open")
    if options.calibrate is not None:
        raise ExportError(
            "calibrate rounds to uint8, which TensorRT does not take: leave it out, or take another format"
        )
    if max_batch < 1:
        raise ExportError(f"max_batch must be 1 or more, got {max_batch}")
    sizes = options.grid_sizes(model.defaults.size, model.vision.config.patch_size)
    several = len(sizes) > 1
    chosen = replace(
        options, attention=ATTENTIONS[options.attention], dynamic_size=several, sizes=() if several else sizes
    )
    with whole_folder(out) as folder:
        manifest = write_graphs(model, folder, chosen, "tensorrt")
        for name in _GRAPHS:
            fit_for_tensorrt(folder / f"{name}.onnx")
        files = {name: replace(entry, sha256=file_sha256(folder / name)) for name, entry in manifest.files.items()}
        manifest = replace(manifest, export=replace(manifest.export, sizes=sizes), files=files)
        if options.check:
            manifest = replace(manifest, check=check_export(model, folder, manifest, Calibration()))
        write_manifest(folder, manifest)
        profiles = make_profiles(sizes, max_batch, manifest.text)
        stored = {name: [{d: asdict(e) for d, e in p.items()} for p in each] for name, each in profiles.items()}
        (folder / PROFILES).write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        commands = build_commands(folder, profiles)
        (folder / "build_engines.sh").write_text(
            "\n".join(["#!/bin/sh", "set -e", 'cd "$(dirname "$0")"', *commands, ""])
        )
        missing = why_not_here()
        if not missing and (timings := stored_timings(out)):
            (folder / TIMING_CACHE).write_bytes(timings)
        engines = () if missing else tuple(build_engines(folder, tell))
    return TensorRTExport(manifest, engines, missing, commands)


def make_profiles(sizes: tuple[tuple[int, int], ...], max_batch: int, text: TextFacts) -> dict[str, list[Profile]]:
    """Optimisation profiles of both encoders by their graphs' names."""
    batch, context = Extent(1, max_batch, max_batch), text.context_length
    length = Extent(context if text.filled else 1, context, context)
    image: list[Profile] = [{"batch": batch}]
    if len(sizes) > 1:
        image = [{"batch": batch, "height": Extent(h, h, h), "width": Extent(w, w, w)} for h, w in sizes]
    return {"image_encoder": image, "text_encoder": [{"texts": Extent(*_TEXTS), "length": length}]}


def fit_for_tensorrt(path: Path) -> None:
    """Compute in float32 what the graph has in float64, which TensorRT lacks: the resampling of positions.

    Raises:
        ExportError: TensorRT would not take the graph.
    """
    import onnx

    from .support import published, unsupported

    model = onnx.load(path, load_external_data=False)
    _narrow(model)
    wrong = unsupported(model)
    if wrong:
        raise ExportError(f"TensorRT {published()['tensorrt']} does not take {path.name}: {'; '.join(wrong)}")
    path.write_bytes(model.SerializeToString())


def _narrow(model: "ModelProto") -> None:
    import numpy as np
    from onnx import TensorProto, numpy_helper

    for stored in model.graph.initializer:
        if stored.data_type == TensorProto.DOUBLE:
            array = numpy_helper.to_array(stored).astype(np.float32)
            stored.CopyFrom(numpy_helper.from_array(array, stored.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.DOUBLE:
                attribute.i = TensorProto.FLOAT


def build_commands(folder: Path, profiles: dict[str, list[Profile]]) -> tuple[str, ...]:
    """What builds the engines elsewhere: `trtexec`, or for graphs with plugins this package."""
    import onnx

    from ..builder import PLUGIN_DOMAIN

    lines = []
    for name, each in profiles.items():
        model = onnx.load(folder / f"{name}.onnx", load_external_data=False)
        if any(node.domain == PLUGIN_DOMAIN for node in model.graph.node):
            lines.append(f"python -m gem_fast.export.tensorrt . {name}")
        else:
            shapes = [input_shapes(model, profile) for profile in each]
            lines.append(trtexec_line(f"{name}.onnx", f"{name}.engine", shapes))
    return tuple(lines)


def build_engines(folder: Path, tell: Callable[[str], None] = print, names: tuple[str, ...] = ()) -> list[str]:
    """Build the engines of an exported folder, or those named; returns their files' names."""
    try:
        stored: dict[str, tuple[Profile, ...]] = from_json(
            dict[str, tuple[Profile, ...]], read_json(folder / PROFILES, _LIMIT)
        )
    except (OSError, ValueError) as error:
        raise ExportError(f"{folder} is no export for TensorRT: {PROFILES} can't be read ({error})") from error
    if foreign := set(stored) - set(_GRAPHS):
        raise ExportError(f"{folder / PROFILES} names a graph {shown(min(foreign))}; it may name {', '.join(_GRAPHS)}")
    unknown = set(names) - set(stored)
    if unknown:
        raise ExportError(f"there is no graph {', '.join(sorted(unknown))}; {folder} has {', '.join(stored)}")
    built = []
    for name in names or tuple(stored):
        tell(f"building {name}.engine, which takes minutes")
        build_engine(folder / f"{name}.onnx", folder / f"{name}.engine", list(stored[name]))
        built.append(f"{name}.engine")
    return built
