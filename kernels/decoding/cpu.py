"""Score decoding by the native CPU kernels of `native/`: vectorised, on torch's threads, without any [P, H, W] beside
the result. `why_not` tells what they leave to torch."""

import ctypes

import torch
from gem_fast.kernels.cpu_library import PATHS, call, choose_path, int64s, pointer, why_missing
from gem_fast.kernels.gradients import wants_gradient
from gem_fast.kernels.operators import register
from torch import Tensor

_USABLE = PATHS[1:]  # scores are decoded in float32


def why_not(scores: Tensor, *dtypes: torch.dtype) -> str | None:
    """Why the kernels can't decode these scores, which must be of one of these types, or None."""
    missing = why_missing()
    if missing:
        return missing
    if scores.device.type != "cpu":
        return f"they run on the CPU, and scores are on {scores.device.type}"
    if scores.dtype not in dtypes:
        return f"they compute in float32, and scores are {str(scores.dtype).removeprefix('torch.')}"
    if wants_gradient(scores):
        return "they have no backward, and scores require a gradient"
    if torch.compiler.is_compiling():
        return "a graph is being traced, and they would be opaque in it"
    return None


def path_for(asked: str | None = None) -> str:
    """The instruction set that decodes, or the one asked for."""
    return choose_path(_USABLE, asked)


def cpu_decode_labels(
    scores: Tensor, size: tuple[int, int], logit_scale: float, threshold: float, *, path: str | None = None
) -> tuple[Tensor, Tensor]:
    """`decode_labels` of float32, bfloat16 or float16 scores [P, h, w], where `why_not` is None.

    Where any of the scores around a pixel is not finite, its confidence is NaN and its label 0. `path` is one of
    `avx512` and `avx2`; None is the fastest here.
    """
    found: tuple[Tensor, Tensor] = _LABELS(scores, *size, float(logit_scale), float(threshold), path_for(path))
    return found


def cpu_decode_heatmaps(scores: Tensor, size: tuple[int, int], *, path: str | None = None) -> Tensor:
    """`decode_heatmaps` of float32 scores [P, h, w], where `why_not` is None; `path` as above."""
    found: Tensor = _HEATMAPS(scores, *size, path_for(path))
    return found


def _labels(
    scores: Tensor, height: int, width: int, logit_scale: float, threshold: float, path: str
) -> tuple[Tensor, Tensor]:
    scores = _rows(scores.to(torch.float32))
    labels, confidence = _room_for_labels(scores, height, width)
    if labels.numel():
        peaks = scores.new_empty(scores.shape[1:])
        call(
            "gem_fast_decode_labels",
            *_problem(scores, (height, width)),
            ctypes.c_double(logit_scale),
            ctypes.c_double(threshold),
            pointer(peaks),
            pointer(labels),
            pointer(confidence),
            PATHS.index(path),
            torch.get_num_threads(),
        )
    return labels, confidence


def _heatmaps(scores: Tensor, height: int, width: int, path: str) -> Tensor:
    scores = _rows(scores)
    maps = _room_for_heatmaps(scores, height, width)
    if maps.numel():
        threads = torch.get_num_threads()
        extremes = scores.new_empty(len(scores), threads, 2)
        problem = _problem(scores, (height, width))
        call("gem_fast_decode_heatmaps", *problem, pointer(extremes), pointer(maps), PATHS.index(path), threads)
    return maps


def _room_for_labels(scores: Tensor, height: int, width: int, *_: object) -> tuple[Tensor, Tensor]:
    """Room for labels and confidences."""
    size = height, width
    return scores.new_empty(size, dtype=torch.int32), scores.new_empty(size, dtype=torch.float32)


def _room_for_heatmaps(scores: Tensor, height: int, width: int, *_: object) -> Tensor:
    """Room for heat maps."""
    return scores.new_empty(scores.shape[0], height, width)


def _rows(scores: Tensor) -> Tensor:
    """The scores with a contiguous last dimension."""
    return scores if scores.stride(-1) == 1 else scores.contiguous()


def _problem(scores: Tensor, size: tuple[int, int]) -> tuple[ctypes.c_void_p, ctypes.Array, ctypes.Array]:
    return pointer(scores), int64s(scores.stride()[:2]), int64s((*scores.shape, *size))


_LABELS = register(
    "decode_labels_cpu(Tensor scores, SymInt height, SymInt width, float logit_scale, float threshold, str path)"
    " -> (Tensor, Tensor)",
    _labels,
    _room_for_labels,
)
_HEATMAPS = register(
    "decode_heatmaps_cpu(Tensor scores, SymInt height, SymInt width, str path) -> Tensor", _heatmaps, _room_for_heatmaps
)
