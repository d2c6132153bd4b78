"""From the state dict of an image tower to packed weights of our own forward."""

import torch
from torch import Tensor

from ..method import Method
from ..options import GemOptions
from .naming import TowerWeights, from_open_clip, from_timm
from .vision_config import VisionConfig
from .vit import GemVisionTransformer


def pack_vision(
    state: dict[str, Tensor], config: VisionConfig, method: Method | GemOptions, backend: str | None = None
) -> GemVisionTransformer:
    """Build the forward from a vision state dict of open_clip (`visual.` stripped), LayerScale folded in.

    Args:
        state: open_clip's own names, or timm's, which begin with `trunk.`. It is emptied: no weight is held twice.
        config: the shape of the tower.
        method, backend: of the forward.

    Raises:
        ValueError: the state dict has entries that this forward would ignore, or lacks some.
    """
    weights = TowerWeights(state)
    timm = any(name.startswith("trunk.") for name in state)
    packed = from_timm(weights, config) if timm else from_open_clip(weights, config)
    if weights.left:
        raise ValueError(
            f"the vision weights have entries that GEM's forward does not know: {sorted(weights.left)[:5]}"
        )
    with torch.device("meta"):
        vision = GemVisionTransformer(config, method, backend)
    vision.load_state_dict({name: packed.pop(name).contiguous() for name in list(packed)}, assign=True)
    return vision.requires_grad_(False).eval()
