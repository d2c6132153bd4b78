"""`--format triton-server`: a model repository for NVIDIA Triton Inference Server, with the ONNX graphs in it."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gem_fast.errors import ExportError
from gem_fast.runtime.manifest import TOKENIZER, file_sha256, write_manifest

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
) -> dict[str, Any]:
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
    if options.attention == "plugin":
        raise ExportError("attention plugin runs in TensorRT only; for triton-server take ort, onnx or portable")
    with whole_folder(out) as folder:
        graphs = folder / "graphs"
        manifest = export_onnx(model, graphs, options)
        encoders, files = {}, {}
        interfaces: dict[str, Interface] = {}
        for file, entry in manifest["files"].items():
            if entry["role"] not in _NAMES:
                continue
            name = _NAMES[entry["role"]] + file.removeprefix(entry["role"]).removesuffix(".onnx")
            interfaces[name] = _place(graphs, file, entry, folder / MODELS / name, name, serving)
            if entry["role"] == "image_encoder":
                encoders[name] = name.replace("gem_image_encoder", "gem")
            files[f"{MODELS}/{name}/1/model.onnx"] = entry
        for encoder, ensemble in encoders.items():
            steps = {name: interfaces[name] for name in (encoder, "gem_text_encoder", "gem_head")}
            _ensemble(folder / MODELS / ensemble, ensemble_config(ensemble, steps))
        shutil.copyfile(graphs / TOKENIZER, folder / TOKENIZER)
        files[TOKENIZER] = manifest["files"][TOKENIZER]
        shutil.rmtree(graphs)
        for path in sorted((folder / MODELS).rglob("*.weights")):
            files[str(path.relative_to(folder))] = {"role": "weights", "sha256": file_sha256(path)}
        manifest["files"] = files
        manifest["export"]["format"] = "triton-server"
        write_manifest(folder, manifest)
        listed = "\n".join(f"- `{name}`" for name in [*encoders.values(), *interfaces])
        images = f"pixels normalised with mean {list(model.mean)} and std {list(model.std)}"
        told = {"images": "uint8 images `[batch, H, W, 3]`" if options.with_preprocess else images, "models": listed}
        text = _README.format(name=model.name, opset=manifest["export"]["opset"], **told)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return manifest


def _place(graphs: Path, file: str, entry: dict[str, Any], target: Path, name: str, serving: Serving) -> Interface:
    """Move a graph into its model's folder, with its weights and its configuration."""
    import onnx

    (target / "1").mkdir(parents=True)
    graph = interface(onnx.load(graphs / file, load_external_data=False))
    (graphs / file).rename(target / "1" / "model.onnx")
    for weights in entry["external_data"]:
        (target / "1" / weights).hardlink_to(graphs / weights)
    most = serving.max_texts if entry["role"] == "text_encoder" else serving.max_batch_size
    (target / "config.pbtxt").write_text(model_config(name, graph, serving, most), encoding="utf-8")
    return graph


def _ensemble(target: Path, config: str) -> None:
    """An ensemble has a configuration and an empty version."""
    (target / "1").mkdir(parents=True)
    (target / "config.pbtxt").write_text(config, encoding="utf-8")
