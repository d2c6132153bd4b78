"""From a model's name to a model that is ready to use."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .errors import ModelError
from .model import GemModel
from .options import GemOptions
from .towers.checkpoint import read_checkpoint
from .towers.packing import pack_vision
from .towers.text import TextEncoder

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    name: str,
    pretrained: str | None = None,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
    text_cache: str | Path | None = None,
    **options: Any,
) -> GemModel:
    """Load a model with GEM's path.

    Args:
        name: `"gem-tiny"`, which is part of this package, or an open_clip ViT such as `"ViT-B-16"`.
        pretrained: open_clip's tag of the weights, such as `"openai"` (downloaded once), or `"random"`.
        weights: a local `.safetensors` or `.pt` state dict with open_clip's names, instead of a tag. OpenAI's and
            MetaCLIP's weights need the `-quickgelu` name of the model.
        device: where to run, such as `"cpu"`, `"cuda"` or `"mps"`.
        dtype: float32, bfloat16 or float16 of the vision transformer; text is encoded in float32.
        text_cache: folder in which to keep text embeddings between runs.
        **options: fields of `GemOptions`, such as `gem_blocks=6` or `iterations=1`.

    Raises:
        ModelError: the model, weights, device or dtype can't be used; the message says why and what can.
    """
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in DTYPES.values():
        raise ModelError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
    where = usable_device(device)
    unknown = set(options) - set(GemOptions.__dataclass_fields__)
    if unknown:
        raise ModelError(f"unknown options {sorted(unknown)}; known are {', '.join(GemOptions.__dataclass_fields__)}")
    checkpoint = read_checkpoint(name, pretrained, weights)
    gem_options = replace(GemOptions(**checkpoint.options), **options)
    vision = pack_vision(checkpoint.vision_state, checkpoint.vision_config, gem_options).to(where, chosen)
    text = TextEncoder(
        checkpoint.text.to(where), checkpoint.tokenizer, known_tokens=checkpoint.known_tokens, cache=text_cache
    )
    return GemModel(
        name=checkpoint.name,
        source=checkpoint.source,
        vision=vision,
        text=text,
        defaults=checkpoint.defaults,
        mean=checkpoint.mean,
        std=checkpoint.std,
    )


def usable_device(device: str | torch.device) -> torch.device:
    """The device, after making sure that it can hold a tensor."""
    try:
        where = torch.device(device)
        torch.zeros(1, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"device {str(device)!r} can't be used here: {str(error).splitlines()[0]}") from error
    return where
