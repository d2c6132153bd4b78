"""From the state dict of an image tower to packed weights of our own forward."""

from collections.abc import MutableMapping

import torch
from torch import Tensor

from ..method import Method
from ..options import GemOptions
from .naming import TowerWeights, from_open_clip, from_timm
from .vision_config import VisionConfig
from .vit import GemVisionTransformer


def pack_vision(
    state: MutableMapping[str, Tensor],
    config: VisionConfig,
    method: Method | GemOptions,
    backend: str | None = None,
    dtype: torch.dtype | None = None,
) -> GemVisionTransformer:
    """Build the forward from a vision state dict of open_clip (`visual.` stripped), LayerScale folded in.

    Args:
        state: open_clip's own names, or timm's, which begin with `trunk.`. It is emptied: no weight is held twice.
        config: the shape of the tower.
        method, backend: of the forward.
        dtype: to which each weight is rounded as it is packed; None for that of the state.

    Raises:
        ValueError: the state dict has entries that this forward would ignore, or lacks some.
    """
    weights = TowerWeights(state)
    timm = any(name.startswith("trunk.") for name in state)
    named = from_timm(weights, config) if timm else from_open_clip(weights, config)
    packed = {name: value.to(dtype or value.dtype).contiguous() for name, value in named}
    if weights.left:
        raise ValueError(
            f"the vision weights have entries that GEM's forward does not know: {sorted(weights.left)[:5]}"
        )
    with torch.device("meta"):
        vision = GemVisionTransformer(config, method, backend)
    vision.load_state_dict(packed, assign=True)
    return vision.requires_grad_(False).eval()
