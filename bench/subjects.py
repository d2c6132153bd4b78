"""What is measured: a model with weights on disk that every provider's process reads, and its input."""

from pathlib import Path

import numpy as np

from .providers import Subject


def make_subject(model: str, folder: Path) -> Subject:
    """A model by name, its vision weights written into `folder`.

    open_clip's models get random weights, the same in every run: how long a forward takes does not depend on them,
    and nothing has to be downloaded. `gem-tiny` brings its own.

    Raises:
        ModelError: there is no such model, or it is not supported.
    """
    import torch
    from safetensors.torch import save_file

    from gem_fast.towers.checkpoint import read_checkpoint
    from gem_fast.towers.configs import EMBEDDED, find_config

    torch.manual_seed(0)
    checkpoint, config = read_checkpoint(model, None if model in EMBEDDED else "random"), find_config(model)
    assert config is not None  # or there would be no checkpoint
    state = {name: value.contiguous() for name, value in checkpoint.vision_state.items()}
    if model not in EMBEDDED:
        for value in state.values():
            if value.ndim == 1:  # new biases are 0 and scales are 1: a provider that left them out would go unnoticed
                value.add_(torch.randn_like(value), alpha=0.02)
    path = folder / f"{model}.safetensors"
    save_file(state, path)
    return Subject(model, config.model_cfg, config.options, str(path))


def random_pixels(batch: int, size: int) -> np.ndarray:
    """Normalised pixels [batch, 3, size, size] float32, the same in every run."""
    return np.random.default_rng(0).standard_normal((batch, 3, size, size), np.float32)
