"""From a folder of images to files of labels: the engine against the runtime without torch and the plain way."""

import dataclasses
import functools
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from gem_fast.bench.subjects import make_subject
from gem_fast.bench.torch_provider import load_weights
from gem_fast.bench.turns import Work
from gem_fast.export import ExportOptions, export_onnx
from gem_fast.kernels.decoding.heatmaps import stretched
from gem_fast.kernels.decoding.reference import labels_reference, upsample
from PIL import Image
from safetensors.torch import save_file

import gem_fast
from gem_fast.decoding import KernelDecoder, label_type
from gem_fast.images import load_image
from gem_fast.model import GemModel
from gem_fast.preprocess import normalised
from gem_fast.runtime import GemRuntime
from gem_fast.towers.eager import eager_gem

WORDS = "cat dog sunflower rocket apple banana umbrella elephant car tree house gift"


class PlainDecoder(KernelDecoder):
    """Interpolate, softmax, argmax in torch, with every class at the image's size in memory."""

    def heatmaps(self, scores: Any, size: tuple[int, int]) -> np.ndarray:
        return stretched(upsample(scores, size)).numpy()

    def labels(
        self, scores: Any, classes: int, size: tuple[int, int], logit_scale: float, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        labels, confidence = labels_reference(scores, size, logit_scale=logit_scale, threshold=threshold)
        return labels.masked_fill(labels > classes, 0).numpy().astype(label_type(classes)), confidence.numpy()


@dataclasses.dataclass(frozen=True)
class PlainModel(GemModel):
    """The same model with the features of eager code."""

    visual: Any = None

    @torch.inference_mode()
    def patch_features(self, pixels: np.ndarray, shape: tuple[int, int]) -> torch.Tensor:
        inputs = torch.from_numpy(normalised(pixels, self.mean, self.std))
        patch, method = self.vision.config.patch_size, self.vision.method
        features, _ = eager_gem(
            self.visual,
            inputs,
            gem_blocks=method.blocks,
            iterations=method.iterations,
            inverse_temperature=None if method.adaptive else float(method.scale),
            projections=method.projections,
            normalize=method.normalize,
        )
        return features[:, 1:].unflatten(1, (shape[0] // patch, shape[1] // patch))

    @property
    def decoder(self) -> PlainDecoder:
        return PlainDecoder()


def make_models(name: str, folder: Path) -> dict[str, Any]:
    """The engine, the runtime on its export, and the plain way, of one set of weights; open_clip's are random."""
    if name == "gem-tiny":
        subject = make_subject(name, folder)
        visual = open_clip.CLIP(**subject.model_cfg).visual
        visual.load_state_dict(load_weights(subject))
        engine = gem_fast.load(name)
    else:
        torch.manual_seed(0)
        clip = open_clip.CLIP(**open_clip.get_model_config(name))
        save_file(clip.state_dict(), folder / "clip.safetensors")
        visual, engine = clip.visual, gem_fast.load(name, weights=folder / "clip.safetensors")
    export_onnx(engine, folder / "exported", ExportOptions(check=False))
    parts = {part.name: getattr(engine, part.name) for part in dataclasses.fields(engine)}
    return {
        "engine": engine,
        "plain": PlainModel(**parts, visual=visual.eval().requires_grad_(False)),
        "runtime without torch": GemRuntime(folder / "exported", threads=torch.get_num_threads()),
    }


@pytest.mark.parametrize(
    ("name", "count", "rounds"),
    [("gem-tiny", 9, 5), ("ViT-B-16", 4, 3), pytest.param("ViT-B-16", 9, 3, marks=pytest.mark.full)],
)
def test_folder(in_turns: Callable[..., Any], tmp_path: Path, name: str, count: int, rounds: int) -> None:
    """Sample images to overlays, labels and legends; words are encoded beforehand, in the call that checks labels.

    What checks them has the model's size already: the runtime resizes by Pillow, the engine by torch.
    """
    models = make_models(name, tmp_path)
    with as_file(files("gem_fast") / "samples") as samples:
        images = sorted(path for path in samples.iterdir() if path.suffix in (".png", ".jpg"))[:count]
        size = models["engine"].defaults.size
        squares = [tmp_path / f"{path.stem}.png" for path in images]
        for path, square in zip(images, squares, strict=True):
            load_image(path).resize((size, size)).save(square)

        def segment(provider: str, images: list[Path]) -> list[Any]:
            settings: dict[str, Any] = {"size": size, "resize": "squash", "threshold": 0.0, "overwrite": True}
            outcome = gem_fast.segment_files(models[provider], images, WORDS.split(), tmp_path / provider, **settings)
            return list(gem_fast.records(outcome.summary))

        found = {
            provider: [read_labels(tmp_path / provider, r) for r in segment(provider, squares)] for provider in models
        }
        for provider, labels in found.items():
            for one, other in zip(labels, found["plain"], strict=True):
                assert (one == other).mean() >= 0.999, provider  # random weights leave near ties
        providers = {provider: functools.partial(segment, provider, images) for provider in models}
        # ONNX Runtime keeps its memory from the first call on: what a later one adds says nothing.
        in_turns(providers, rounds=rounds, work=Work(images=count), added_mb={"runtime without torch": None})


def read_labels(folder: Path, record: Any) -> np.ndarray:
    assert record.status == "ok", record.error
    return np.asarray(Image.open(folder / record.files["labels"]))
