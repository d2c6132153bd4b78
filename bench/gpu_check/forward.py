"""Cases of the whole engine: patch features of a vision transformer, and gem-tiny from pixels to labels."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from gem_fast.bench.providers import Provider, Subject
from gem_fast.bench.subjects import make_subject, random_pixels
from gem_fast.bench.torch_provider import build, eager_forward
from gem_fast.kernels import decode_labels
from gem_fast.kernels.attention.triton.tile_trials import DTYPES
from torch import Tensor

import gem_fast
from gem_fast.demo import PHOTOS, SAMPLES, sample_prompts
from gem_fast.images import load_image
from gem_fast.model import GemModel
from gem_fast.preprocess import to_pixels
from gem_fast.scores import score_patches

from .cases import Call, Case, Outputs, Problem
from .decoding import regret

FORWARDS = (("ViT-B-16", 8, 224), ("ViT-B-16-quickgelu", 3, 448), ("ViT-B-16", 4, 448))  # model, images, side
SIDE = 448  # of gem-tiny's labels
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def forward_cases(kinds: tuple[str, ...], quick: bool) -> Iterator[Case]:
    for kind in kinds:
        for model, batch, size in FORWARDS[-2:] if quick else FORWARDS:
            build_it = functools.partial(forward_problem, model, batch, size, kind)
            yield Case("forward", f"{model}, {batch} × {size}²", kind, build_it)
        yield Case("gem_tiny", f"{len(scenes())} scenes to labels", kind, functools.partial(labels_problem, kind))


def forward_problem(
    model: str, batch: int, size: int, kind: str, device: torch.device, checked: str = "triton"
) -> Problem:
    """Random weights and pixels; float64 is eager code over open_clip's modules, which shares nothing with ours."""
    pixels = torch.from_numpy(random_pixels(batch, size)).to(device)
    dtype = str(DTYPES[kind]).removeprefix("torch.")
    subject = subject_of(model)
    exact = eager_forward(subject, str(device), torch.float64)
    eager = build(Provider("eager", "eager", dtype), subject, str(device))
    ours, sdpa = (build(Provider(way, "engine", dtype, way), subject, str(device)) for way in (checked, "sdpa"))
    return Problem(
        ours={f"engine on {checked}": functools.partial(ours, pixels)},
        rivals={"engine on sdpa": functools.partial(sdpa, pixels), "eager": functools.partial(eager, pixels)},
        truth=lambda: {"features": exact(pixels)},
        plain=lambda: {"features": eager(pixels)},
        outputs=lambda features: {"features": features},
    )


@functools.cache
def subject_of(model: str) -> Subject:
    """A model, made once for all its cases; the folder of its weights goes with the process."""
    _FOLDERS.append(tempfile.TemporaryDirectory())
    return make_subject(model, Path(_FOLDERS[-1].name))


Decoded = list[tuple[Tensor, Tensor, Tensor]]  # of each scene its scores [P, h, w], labels and confidences


@functools.cache
def scenes() -> dict[str, list[str]]:
    """The drawn samples, with the words to look for in each."""
    return {name: words for name, words in sample_prompts().items() if name not in PHOTOS}


def labels_problem(kind: str, device: torch.device, checked: str = "triton") -> Problem:
    """gem-tiny on the sample scenes, squashed to one size; float64 is the reference backend."""
    on_backend = {
        backend: gem_fast.load("gem-tiny", device=device, dtype=DTYPES[kind], backend=backend)
        for backend in (checked, "sdpa", "reference")
    }
    exact_model = gem_fast.load("gem-tiny", device=device, backend="reference")
    exact_model.vision.double()
    pixels = scene_pixels(exact_model).to(device)
    words = {name: exact_model.encode_text(found) for name, found in scenes().items()}
    exact = decoded(exact_model, pixels.double(), words)

    def outputs(results: Decoded) -> Outputs:
        """Labels are judged by the scores that they come from: where classes are near, those of others are noise."""
        each = [
            {
                "scores": scores.double().flatten().cpu(),
                "confidence": confidence.double().flatten().cpu(),
                "regret": regret(labels, scores, exact_model.defaults.logit_scale, 0.0).flatten().cpu(),
            }
            for scores, labels, confidence in results
        ]
        return {name: torch.cat([scene[name] for scene in each])[:, None] for name in each[0]}

    calls: dict[str, Call] = {
        f"engine on {name}": functools.partial(decoded, each, pixels, words) for name, each in on_backend.items()
    }
    return Problem(
        ours={f"engine on {checked}": calls.pop(f"engine on {checked}")},
        rivals=calls,
        truth=lambda: {name: value * (name != "regret") for name, value in outputs(exact).items()},
        plain=lambda: outputs(decoded(on_backend["reference"], pixels, words)),
        outputs=outputs,
    )


def scene_pixels(model: GemModel) -> Tensor:
    side = model.defaults.size
    pictures = [load_image(str(SAMPLES / name)) for name in scenes()]
    return torch.stack([to_pixels(picture, (side, side), model.mean, model.std) for picture in pictures])


def decoded(model: GemModel, pixels: Tensor, words: dict[str, Tensor]) -> Decoded:
    """Scores, labels and confidences of each scene, on the model's backend."""
    patches, results = model.features(pixels), []
    for index, embeddings in enumerate(words.values()):
        scores = score_patches(patches[index : index + 1], embeddings, [1] * len(embeddings))[0]
        backend, scale = model.vision.backend, model.defaults.logit_scale
        labels, confidence = decode_labels(scores, (SIDE, SIDE), logit_scale=scale, backend=backend)
        results.append((scores, labels, confidence))
    return results
