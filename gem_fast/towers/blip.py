"""BLIP's weights, of both kinds of names.

Salesforce's checkpoints and transformers' `BlipForImageTextRetrieval` hold the same weights. Image-text matching by
cosines (ITC) is what is served; the towers for matching by cross attention and for captions are left out.
"""

import re
from collections.abc import MutableMapping
from typing import Any

from torch import Tensor

from .bert import BertText, bert_shapes, pack_bert
from .blip_config import SCALE, blip_text, blip_vision
from .clip_names import check_finite
from .naming import TowerWeights
from .weights_file import Weights

_IGNORED = re.compile(
    r"(itm_head|text_decoder)\..*|(visual_encoder|text_encoder|vision_proj|text_proj)_m\..*|\w*_queue|queue_ptr|ptr_queue"
    r"|temp|logit_scale|.*\.position_ids|text_encoder\.(cls|pooler)\..*|.*\.crossattention\..*"
)
_RENAMED = (
    (re.compile(r"vision_model\.embeddings\.class_embedding"), "trunk.cls_token"),
    (re.compile(r"vision_model\.embeddings\.position_embedding"), "trunk.pos_embed"),
    (re.compile(r"vision_model\.embeddings\.patch_embedding\.(.*)"), r"trunk.patch_embed.proj.\1"),
    (re.compile(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv\.(.*)"), r"trunk.blocks.\1.attn.qkv.\2"),
    (re.compile(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection\.(.*)"), r"trunk.blocks.\1.attn.proj.\2"),
    (re.compile(r"vision_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.(.*)"), r"trunk.blocks.\1.norm\2.\3"),
    (re.compile(r"vision_model\.encoder\.layers\.(\d+)\.mlp\.(.*)"), r"trunk.blocks.\1.mlp.\2"),
    (re.compile(r"vision_model\.post_layernorm\.(.*)"), r"trunk.norm.\1"),
    (re.compile(r"visual_encoder\.(.*)"), r"trunk.\1"),
    (re.compile(r"vision_proj\.(.*)"), r"trunk.head.\1"),
)


def blip_shapes(model_cfg: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights that are needed, the image tower's in timm's names."""
    vision, text = blip_vision(model_cfg), blip_text(model_cfg)
    C, M, E, patch = vision.width, vision.mlp_width, vision.embed_dim, vision.patch_size
    layers = {"trunk.patch_embed.proj": (C, 3, patch, patch), "trunk.norm": (C,), "trunk.head": (E, C)}
    for i in range(vision.layers):
        block = f"trunk.blocks.{i}"
        layers |= {f"{block}.norm1": (C,), f"{block}.attn.qkv": (3 * C, C), f"{block}.attn.proj": (C, C)}
        layers |= {f"{block}.norm2": (C,), f"{block}.mlp.fc1": (M, C), f"{block}.mlp.fc2": (C, M)}
    layers["text_proj"] = (E, text.width)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes |= {"trunk.cls_token": (1, 1, C), "trunk.pos_embed": (1, 1 + vision.grid[0] * vision.grid[1], C)}
    return shapes | {f"text_encoder.{name}": shape for name, shape in bert_shapes(text).items()}


def blip_state(weights: Weights) -> dict[str, Tensor]:
    """The weights under the names of `blip_shapes`, without what is for matching, captions and training."""
    state = {}
    for name, value in weights.state.items():
        if _IGNORED.fullmatch(name):
            continue
        for pattern, target in _RENAMED:
            if match := pattern.fullmatch(name):
                name = match.expand(target)
                break
        state[name] = value
    return state


def is_blip(names: Any) -> bool:
    """Whether weights with these names are BLIP's."""
    return "text_proj.weight" in names and "vision_proj.weight" in names


def blip_scale(weights: Weights | None) -> float:
    """What cosines are multiplied with: one over the temperature of a checkpoint, within the bounds of its training."""
    if weights is None:
        return SCALE
    temperature = weights.state.get("temp")
    if temperature is None or temperature.numel() != 1:
        return SCALE
    check_finite({"temp": temperature}, weights)
    return 1 / min(max(float(temperature), 0.001), 0.5)


def pack_blip_text(state: MutableMapping[str, Tensor], model_cfg: dict[str, Any]) -> BertText:
    """The text tower of weights in the names of `blip_shapes`, which are taken out of the state."""
    own = {name.removeprefix("text_encoder."): state.pop(name) for name in list(state) if name.startswith("text_")}
    return pack_bert(TowerWeights(own, "text"), blip_text(model_cfg), ("text_proj",))
