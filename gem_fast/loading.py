"""From a model's name to a model that is ready to use."""

import os
import platform
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from gem_fast.kernels.backends import EVERYWHERE, VARIABLE, check_name
from gem_fast.kernels.cpu_library import why_missing, why_no_vnni

from .dtypes import INT8, dtype_name
from .errors import ModelError, warn_caller
from .graphs import graphs_of
from .method import Method, find_method
from .model import GemModel
from .options import GemOptions
from .towers.attention_pool import POOLINGS
from .towers.checkpoint import Checkpoint, read_checkpoint
from .towers.int8 import quantize_blocks
from .towers.layer import prepack
from .towers.packing import pack_vision
from .towers.text import TextEncoder
from .towers.vision_config import VisionConfig


def load(
    name: str,
    pretrained: str | None = None,
    *,
    weights: str | Path | None = None,
    tokenizer: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
    backend: str | None = None,
    text_dtype: torch.dtype | str = torch.float32,
    text_cache: str | Path | None = None,
    method: str | Method = "gem",
    feature_surgery: bool = False,
    pooling: str = "head",
    rotated: bool = False,
    sigmoid: bool = False,
    graph: bool | None = None,
    **options: Any,
) -> GemModel:
    """Load a model with the path of GEM or another method.

    Args:
        name: `"gem-tiny"`, which is part of this package, a model of open_clip such as `"ViT-B-16"`, `"blip-base"` or
            `"blip-large"`; or a model that describes itself: a folder of open_clip or Hugging Face,
            `"local-dir:FOLDER"`, `"hf-hub:OWNER/NAME"`.
        pretrained: open_clip's tag of the weights, such as `"openai"` (downloaded once), or `"random"`.
        weights: a local file or folder instead of a tag: safetensors, torch or TorchScript, with the names of
            open_clip, OpenAI or Hugging Face; nothing in it is run. OpenAI's and MetaCLIP's weights need the
            `-quickgelu` name of the model.
        tokenizer: a local `tokenizer.json` or `vocab.txt`, or a folder with one, for a model whose tokenizer is not
            CLIP's own; by default the folder of the weights, then the hub.
        device: where to run, such as `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"`; of `"cuda"` `segment_files` takes all
            GPUs, what else there is the first.
        dtype: float32, bfloat16 or float16 of the vision transformer, by torch's type, its name or its short name, or
            int8 of its blocks' linear layers, on CPUs with AVX-512 VNNI.
        backend: `"cpu"`, `"triton"`, `"sdpa"` or `"reference"` for the attention, LayerNorm and the decoding of
            scores; what has no kernels of that name takes plain torch. None is what the environment variable
            `GEM_FAST_BACKEND` names, else the fastest that serves.
        text_dtype: float32, bfloat16 or float16 of the text tower, whose embeddings are float32: for many prompts on a
            GPU, or a CPU that multiplies bfloat16 faster.
        text_cache: folder in which to keep text embeddings between runs.
        method: what makes the patch features: a name of `gem_fast.methods()`, or an own `Method`. Sizes, scales and
            thresholds stay the model's.
        feature_surgery: score as CLIP Surgery does: each word's cosines, weighted by its likeness to the whole image,
            less their mean over all words; those of a single class less those of no word. It finishes CLIP's own path.
        pooling: a patch's embedding by SigLIP and PE, whose heads attend: `"head"`, that of an image of this token
            alone, or `"value"`, what the head's attention adds up.
        rotated: in EVA02 and PE, whose q and k are rotated by place, the method's attention sees them rotated.
        sigmoid: a pixel's confidence is `sigmoid(scale · cosine + bias)` of its best class, for SigLIP; by default it
            is the softmax over classes, from which the bias cancels.
        graph: run the vision transformer by CUDA graphs, one recorded for each shape of pixels at its first use and
            kept for the next: for small batches, of which the host is the limit. It takes a CUDA device. By default a
            shape is recorded there when it comes for the second time, unless the batch is large; False never does.
        **options: fields of `GemOptions`, such as `gem_blocks=6` or `iterations=1`, which change the method `"gem"`.

    Raises:
        ModelError: the model, weights, device, dtype, backend or method can't be used; the message says what can.
    """
    try:
        named, text_named = dtype_name(dtype, also=(INT8,)), dtype_name(text_dtype, argument="text_dtype")
        if backend is not None:
            check_name(backend)
    except ValueError as error:
        raise ModelError(str(error)) from error
    where = usable_device(device)
    if named == INT8:
        require_int8(where, backend)
    graphs = graphs_of(graph, where)
    if where.type == "cpu" and not (backend or os.environ.get(VARIABLE)):
        warn_of_plain_torch()
    unknown = set(options) - set(GemOptions.__dataclass_fields__)
    if unknown:
        raise ModelError(f"unknown options {sorted(unknown)}; known are {', '.join(GemOptions.__dataclass_fields__)}")
    with torch.device("cpu"):  # whatever torch's default device is
        checkpoint = read_checkpoint(name, pretrained, weights, tokenizer)
    config = _reading(checkpoint, pooling, rotated)
    if sigmoid and checkpoint.logit_bias is None:
        raise ModelError(f"sigmoid is for models that were trained with one, as SigLIP; {checkpoint.name} was not")
    try:
        chosen_method = find_method(method, GemOptions(**checkpoint.options), options)
    except ValueError as error:
        raise ModelError(str(error)) from error
    tower = prepack(checkpoint.text.to(where, getattr(torch, text_named)))
    kept = torch.float32 if named == INT8 else getattr(torch, named)
    vision = pack_vision(checkpoint.vision_state, config, chosen_method, backend, kept)
    vision = quantize_blocks(vision) if named == INT8 else vision.to(where)
    text = TextEncoder(tower, checkpoint.tokenizer, known_tokens=checkpoint.known_tokens, cache=text_cache)
    return GemModel(
        name=checkpoint.name,
        source=checkpoint.source,
        vision=prepack(vision),
        text=text,
        defaults=checkpoint.defaults,
        mean=checkpoint.mean,
        std=checkpoint.std,
        interpolation=checkpoint.interpolation,
        feature_surgery=feature_surgery,
        logit_bias=checkpoint.logit_bias if sigmoid else None,
        copies_on=all_of(where),
        graphs=graphs,
    )


def all_of(device: torch.device) -> tuple[str, ...]:
    """The devices that `segment_files` shares images among: of `cuda` without a number all GPUs of the machine."""
    if device.type != "cuda" or device.index is not None:
        return (str(device),)
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))


def _reading(checkpoint: Checkpoint, pooling: str, rotated: bool) -> VisionConfig:
    """The image tower's shape, with the caller's choice of how its patches are read."""
    config = checkpoint.vision_config
    if pooling not in POOLINGS:
        raise ModelError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    if pooling != "head" and not config.pool_mlp_width:
        raise ModelError(
            f"pooling={pooling!r} is for heads that attend, with an MLP behind, as SigLIP's; {checkpoint.name} has none"
        )
    if rotated and config.rotary is None:
        raise ModelError(f"rotated is for towers with rotary positions, as EVA02's; {checkpoint.name} has none")
    return replace(config, pooling=pooling, rotated=rotated)


def usable_device(device: str | torch.device) -> torch.device:
    """The device, after making sure that it can hold a tensor."""
    try:
        where = torch.device(device)
        torch.zeros(1, device=where).cpu()  # which meta tensors can't do
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"device {str(device)!r} can't be used here: {str(error).splitlines()[0]}") from error
    return where


def require_int8(device: torch.device, backend: str | None) -> None:
    """Raise ModelError where linear layers in int8 can't run, or only by torch and unasked."""
    if device.type != "cpu":
        raise ModelError(f"dtype int8 is for the CPU, and the device is {device}: take float16 or bfloat16 there")
    reason = why_no_vnni()
    if reason and (backend or os.environ.get(VARIABLE)) not in EVERYWHERE:
        raise ModelError(f"dtype int8 can't run here: {reason}. Take float32 or bfloat16")


@cache
def warn_of_plain_torch() -> None:
    """Warn, once a process, where native kernels could run on this CPU and are missing."""
    reason = why_missing()
    if reason and sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64"):
        warn_caller(
            f"the native CPU kernels are missing, and plain torch takes about 1.3 times as long in float32: {reason}"
        )
