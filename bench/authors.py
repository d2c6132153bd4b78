"""The authors' package, gem_torch with the open_clip that it needs, from a folder of its own (`make authors`)."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .providers import Subject
    from .torch_provider import Forward

VARIABLE = "GEM_FAST_AUTHORS"
FOLDER = Path("build", "authors")


def folder() -> Path:
    """Where the package lies: what the environment variable names, else `build/authors` of the working directory."""
    return Path(os.environ.get(VARIABLE) or FOLDER).absolute()


def why_missing(where: Path | None = None) -> str | None:
    """Why the package can't be measured, or None."""
    where = where or folder()
    if (where / "gem").is_dir() and (where / "open_clip").is_dir():
        return None
    return f"the authors' package is not in {where}; `make authors` installs it, {VARIABLE} names another folder"


def build_authors(subject: "Subject", dtype: "torch.dtype", device: str) -> "Forward":
    """Their wrapper over our weights; runs only in a process whose path starts with `folder()`."""
    import open_clip
    import torch.nn.functional as F
    from gem.gem_wrapper import GEMWrapper

    from .torch_provider import load_weights

    options = dict(subject.options)
    settings = {
        "depth": options.pop("gem_blocks", 6) + 1,  # theirs changes the blocks of range(1, depth)
        "ss_attn_iter": options.pop("iterations", 1),
        "ss_attn_temp": options.pop("inverse_temperature", None),
    }
    if options:
        raise ValueError(f"the authors' package has no such options: {', '.join(options)}")
    clip = open_clip.CLIP(**subject.model_cfg)
    clip.visual.load_state_dict(load_weights(subject))
    visual = GEMWrapper(clip, tokenizer=None, **settings).model.visual
    visual = visual.eval().requires_grad_(False).to(device, dtype)

    def forward(pixels: "Tensor") -> "Tensor":
        gem, _ = visual(pixels.to(dtype))
        return F.normalize(gem[:, 1:].float(), dim=-1)

    return forward
