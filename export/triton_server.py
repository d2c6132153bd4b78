"""`--format triton-server`: a model repository for NVIDIA Triton Inference Server, with the ONNX graphs in it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gem_fast.errors import ExportError
from gem_fast.preprocess import unbounded_size
from gem_fast.runtime.facts import FileFacts, Size
from gem_fast.runtime.folder import file_sha256
from gem_fast.runtime.manifest import TOKENIZER, Manifest, write_manifest

from .export_options import ExportOptions
from .folders import whole_folder
from .model_config import Interface, Serving, ensemble_config, interface, model_config

if TYPE_CHECKING:
    from gem_fast.model import GemModel

MODELS = "models"
_STEPS = ("image", "text", "head")  # what `gem_` is followed by in a model that is no ensemble
_NAMES = {"image_encoder": "gem_image_encoder", "text_encoder": "gem_text_encoder", "head": "gem_head"}
# The first release of the server whose ONNX Runtime knows an opset, by its compatibility matrix, which begins at 24.04.
_LEAST_RELEASE = {18: "24.04", 19: "24.04", 20: "24.04", 21: "24.05", 22: "25.03", 23: "25.09", 24: "26.02"}
_README = """# {name} for NVIDIA Triton Inference Server

Start a server on this folder, of release {release} or newer (it must know opset {opset}):

    docker run --rm --gpus all -p 8000:8000 -p 8001:8001 -v "$PWD/models:/models" \\
        nvcr.io/nvidia/tritonserver:RELEASE-py3 tritonserver --model-repository=/models

Leave out `--gpus all` to serve on the CPU. The encoders run once before the server is ready. Models:

{models}

{ensembles} {images}, and

- `token_ids`, int64 `[texts, length]`: ids of the prompts, by `tokenizer.json`
- `output_size`, int64 `[2]`: height and width of what it gives
- `synonyms`, int64 `[classes, most]`: rows of the texts of each class; `[[-1]]` where each text is a class
- `logit_scale` and `threshold`, float32 `[1]`: {scale:g} and {threshold:g} are the model's

for `cosines`, `heatmaps`, `labels` (0 is background) and `confidence`. Ask only for the outputs that you need.
{surgery}
`request.json` is a request for embeddings of `a photo of a cat.`:

    curl -s -d @request.json http://localhost:8000/v2/models/gem_text_encoder/infer

and in Python `{first}` segments (pip install 'tritonclient[http]'):

    import numpy as np
    import tritonclient.http as http

    feed = {{
        "{image_name}": np.zeros({image_shape}, np.{image_type}),  # your images
        "token_ids": np.array({tokens}),  # a photo of a cat.
        "output_size": np.array([480, 640]),
        "synonyms": np.array([[-1]]),
        "logit_scale": np.array([{scale:g}], np.float32),
        "threshold": np.array([{threshold:g}], np.float32),
    }}
    types = {{"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}}
    inputs = [http.InferInput(name, list(value.shape), types[str(value.dtype)]) for name, value in feed.items()]
    for each, value in zip(inputs, feed.values()):
        each.set_data_from_numpy(value)
    labels = http.InferRequestedOutput("labels")
    print(http.InferenceServerClient("localhost:8000").infer("{first}", inputs, outputs=[labels]).as_numpy("labels"))
{shared}"""
_SURGERY = """
`cosines` are scores by CLIP Surgery's feature surgery, of two classes or more; a single class has its plain cosines.
"""
_SHARED = """
The image encoders share their weights: `image_encoder.weights` is one file with a name in each of their folders (hard
links). git, most copies and uploads make a file of each name; nothing but space is lost by that.
"""
_KEPT = "This file keeps the folder, a version of the ensemble, where empty folders are lost.\n"


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
    if options.attention == "plugin":
        raise ExportError("attention plugin runs in TensorRT only; for triton-server take ort, onnx or portable")
    with whole_folder(out) as folder:
        graphs = folder / "graphs"
        made = export_onnx(model, graphs, options)
        files = _place_all(made, graphs, folder, serving)
        shutil.rmtree(graphs)
        manifest = replace(made, export=replace(made.export, format="triton-server"), files=files)
        write_manifest(folder, manifest)
        _write_guide(manifest, folder)
    return manifest


def _place_all(made: Manifest, graphs: Path, folder: Path, serving: Serving) -> dict[str, FileFacts]:
    """Move the graphs into the repository's models, and join them by ensembles; returns its files."""
    encoders, files = [], {TOKENIZER: made.files[TOKENIZER]}
    interfaces: dict[str, Interface] = {}
    for role, prefix in _NAMES.items():
        for file, entry in made.of_role(role).items():
            name = prefix + file.removeprefix(role).removesuffix(".onnx")
            free = (made.text.context_length,) if role == "text_encoder" else _size(made, entry)
            interfaces[name] = _place(graphs, file, entry, folder / MODELS / name, serving, free)
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


def _write_guide(manifest: Manifest, folder: Path) -> None:
    """README.md, and request.json with a request that it speaks of."""
    from tokenizers import Tokenizer

    names = sorted(path.name for path in (folder / MODELS).iterdir())
    ensembles = [name for name in names if name.removeprefix("gem_").partition("_")[0] not in _STEPS]
    encoder = next(iter(manifest.of_role("image_encoder").values()))
    (image,) = encoder.inputs
    takes = "takes" if len(ensembles) == 1 else "take"
    normalised = f"pixels normalised with mean {list(manifest.image.mean)} and std {list(manifest.image.std)}"
    height, width = _size(manifest, encoder)
    tokens = [each.ids for each in Tokenizer.from_file(str(folder / TOKENIZER)).encode_batch(["a photo of a cat."])]
    opset = manifest.export.opset or 0
    text = _README.format(
        name=manifest.model.name,
        release=_LEAST_RELEASE[opset],
        opset=opset,
        models="\n".join(f"- `{name}`" for name in names),
        ensembles=", ".join(f"`{name}`" for name in ensembles),
        first=ensembles[0],
        images=f"{takes} {normalised if image == 'pixels' else 'uint8 images `[batch, H, W, 3]`'} as `{image}`",
        image_name=image,
        image_type="float32" if image == "pixels" else "uint8",
        image_shape=(1, 3, height, width) if image == "pixels" else (1, 480, 640, 3),
        tokens=tokens,
        scale=manifest.defaults.logit_scale,
        threshold=manifest.defaults.threshold,
        surgery=_SURGERY if manifest.export.feature_surgery else "",
        shared=_SHARED if manifest.of_role("weights") and len(ensembles) > 1 else "",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    entry = {"name": "token_ids", "shape": [1, len(tokens[0])], "datatype": "INT64", "data": tokens[0]}
    (folder / "request.json").write_text(json.dumps({"inputs": [entry]}) + "\n", encoding="utf-8")


def _size(made: Manifest, encoder: FileFacts) -> Size:
    """Of the input of an image encoder; of one that takes any, the model's own."""
    return encoder.size or unbounded_size((1, 1), made.image.default_size, "squash", made.image.patch_size)


def _place(
    graphs: Path, file: str, entry: FileFacts, target: Path, serving: Serving, free: tuple[int, ...]
) -> Interface:
    """Move a graph into its model's folder, with its weights and its configuration; it warms up with `free` lengths."""
    import onnx

    (target / "1").mkdir(parents=True)
    graph = interface(onnx.load(graphs / file, load_external_data=False))
    (graphs / file).rename(target / "1" / "model.onnx")
    for weights in entry.external_data:
        (target / "1" / weights).hardlink_to(graphs / weights)
    most = serving.max_texts if entry.role == "text_encoder" else serving.max_batch_size
    (target / "config.pbtxt").write_text(model_config(target.name, graph, serving, most, free), encoding="utf-8")
    return graph


def _ensemble(target: Path, config: str) -> None:
    """An ensemble has a configuration and a version with nothing to run."""
    (target / "1").mkdir(parents=True)
    (target / "1" / ".keep").write_text(_KEPT, encoding="utf-8")
    (target / "config.pbtxt").write_text(config, encoding="utf-8")
