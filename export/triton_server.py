"""`--format triton-server`: a model repository for NVIDIA Triton Inference Server, with the ONNX graphs in it."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gem_fast.errors import ExportError
from gem_fast.runtime.facts import FileFacts
from gem_fast.runtime.folder import file_sha256
from gem_fast.runtime.manifest import TOKENIZER, Manifest, write_manifest

from .export_options import ExportOptions
from .folders import whole_folder
from .model_config import Interface, Serving, ensemble_config, interface, model_config

if TYPE_CHECKING:
    from gem_fast.model import GemModel

MODELS = "models"
_NAMES = {"image_encoder": "gem_image_encoder", "text_encoder": "gem_text_encoder", "head": "gem_head"}
_README = """# {name} for NVIDIA Triton Inference Server

Start a server on this folder, of a release whose ONNX Runtime knows opset {opset}:

    docker run --rm --gpus all -p 8000:8000 -p 8001:8001 -v "$PWD/models:/models" \\
        nvcr.io/nvidia/tritonserver:RELEASE-py3 tritonserver --model-repository=/models

Leave out `--gpus all` to serve on the CPU. Models:

{models}

`gem` takes {images}, token ids of
the prompts (by `tokenizer.json`) and the output size, and gives cosines, heat maps, labels (0 is background) and
confidences. Ask only for the outputs that you need.
"""


def export_triton_server(
    model: "GemModel", out: Path, options: ExportOptions, serving: Serving | None = None
) -> Manifest:
    """Write a model repository: image encoder, text encoder, head, and an ensemble of the three.

    With several sizes there is an image encoder and an ensemble for each, `gem_448x640`.

    Args:
        model: loaded in float32 on the CPU.
        out: the folder. It appears whole, with the repository in `models`; an earlier export there is replaced.
        options: see `ExportOptions`; `attention` is one that ONNX Runtime runs.
        serving: batches and instances.

    Returns:
        The manifest, as `manifest.json` holds it.

    Raises:
        ExportError: an option doesn't fit, or the graphs do not agree with torch.
    """
    from .onnx_export import export_onnx

    serving = serving or Serving()
    if model.feature_surgery:
        raise ExportError("the server's ensemble scores by plain cosines: load the model without feature_surgery")
    if options.attention == "plugin":
        raise ExportError("attention plugin runs in TensorRT only; for triton-server take ort, onnx or portable")
    with whole_folder(out) as folder:
        graphs = folder / "graphs"
        made = export_onnx(model, graphs, options)
        files = _place_all(made, graphs, folder, serving)
        shutil.rmtree(graphs)
        manifest = replace(made, export=replace(made.export, format="triton-server"), files=files)
        write_manifest(folder, manifest)
        (folder / "README.md").write_text(_readme(manifest, folder), encoding="utf-8")
    return manifest


def _place_all(made: Manifest, graphs: Path, folder: Path, serving: Serving) -> dict[str, FileFacts]:
    """Move the graphs into the repository's models, and join them by ensembles; returns its files."""
    encoders, files = [], {TOKENIZER: made.files[TOKENIZER]}
    interfaces: dict[str, Interface] = {}
    for role, prefix in _NAMES.items():
        for file, entry in made.of_role(role).items():
            name = prefix + file.removeprefix(role).removesuffix(".onnx")
            interfaces[name] = _place(graphs, file, entry, folder / MODELS / name, name, serving)
            files[f"{MODELS}/{name}/1/model.onnx"] = entry
            if role == "image_encoder":
                encoders.append(name)
    for encoder in encoders:
        steps = {name: interfaces[name] for name in (encoder, "gem_text_encoder", "gem_head")}
        ensemble = encoder.replace("gem_image_encoder", "gem")
        _ensemble(folder / MODELS / ensemble, ensemble_config(ensemble, steps))
    for path in sorted((folder / MODELS).rglob("*.weights")):
        files[path.relative_to(folder).as_posix()] = FileFacts("weights", file_sha256(path))
    (graphs / TOKENIZER).rename(folder / TOKENIZER)
    return files


def _readme(manifest: Manifest, folder: Path) -> str:
    image = manifest.image
    pixels = f"pixels normalised with mean {list(image.mean)} and std {list(image.std)}"
    images = "uint8 images `[batch, H, W, 3]`" if manifest.export.with_preprocess else pixels
    models = "\n".join(f"- `{path.name}`" for path in sorted((folder / MODELS).iterdir()))
    return _README.format(name=manifest.model.name, opset=manifest.export.opset, images=images, models=models)


def _place(graphs: Path, file: str, entry: FileFacts, target: Path, name: str, serving: Serving) -> Interface:
    """Move a graph into its model's folder, with its weights and its configuration."""
    import onnx

    (target / "1").mkdir(parents=True)
    graph = interface(onnx.load(graphs / file, load_external_data=False))
    (graphs / file).rename(target / "1" / "model.onnx")
    for weights in entry.external_data:
        (target / "1" / weights).hardlink_to(graphs / weights)
    most = serving.max_texts if entry.role == "text_encoder" else serving.max_batch_size
    (target / "config.pbtxt").write_text(model_config(name, graph, serving, most), encoding="utf-8")
    return graph


def _ensemble(target: Path, config: str) -> None:
    """An ensemble has a configuration and an empty version."""
    (target / "1").mkdir(parents=True)
    (target / "config.pbtxt").write_text(config, encoding="utf-8")
