"""The architecture that weights are of, and whether it is that of the model that was asked for."""

from dataclasses import dataclass
from math import isqrt
from typing import Any

from torch import Tensor

from .open_clip_files import model_config, model_names
from .served import why_unsupported

_SIZES = {384: "S", 512: "M", 768: "B", 1024: "L", 1280: "H", 1408: "g", 1664: "bigG"}


@dataclass(frozen=True)
class Architecture:
    """The numbers of a CLIP of a vision transformer that its weights show."""

    patch: int
    width: int
    blocks: int
    embed_dim: int
    text_width: int
    text_blocks: int
    context: int
    vocabulary: int

    def __str__(self) -> str:
        size = f"-{_SIZES[self.width]}" if self.width in _SIZES else ""
        return f"ViT{size}/{self.patch} (width {self.width}, {self.blocks} blocks)"

    def difference(self, other: "Architecture") -> str:
        """In what this differs from the other."""
        pairs = ((n.replace("_", " "), getattr(self, n), getattr(other, n)) for n in self.__dataclass_fields__)
        return ", ".join(f"{name} {ours} instead of {theirs}" for name, ours, theirs in pairs if ours != theirs)


def architecture_of_config(model_cfg: dict[str, Any]) -> Architecture | None:
    """Of open_clip's config of a supported model, with open_clip's own defaults; None if a tower is not its own."""
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    if vision.get("timm_model_name") or text.get("hf_model_name") or text.get("embed_cls"):
        return None
    return Architecture(
        patch=vision.get("patch_size", 16),
        width=vision.get("width", 768),
        blocks=vision.get("layers", 12),
        embed_dim=model_cfg["embed_dim"],
        text_width=text.get("width", 512),
        text_blocks=text.get("layers", 12),
        context=text.get("context_length", 77),
        vocabulary=text.get("vocab_size", 49408),
    )


def architecture_of_state(state: dict[str, Tensor]) -> Architecture | None:
    """Of weights in open_clip's names, or None if they lack what tells it."""
    try:
        return Architecture(
            patch=state["visual.conv1.weight"].shape[3],
            width=state["visual.conv1.weight"].shape[0],
            blocks=_blocks(state, "visual.transformer.resblocks."),
            embed_dim=state["visual.proj"].shape[1],
            text_width=state["positional_embedding"].shape[1],
            text_blocks=_blocks(state, "transformer.resblocks."),
            context=state["positional_embedding"].shape[0],
            vocabulary=state["token_embedding.weight"].shape[0],
        )
    except (KeyError, IndexError):
        return None


def trained_size(state: dict[str, Tensor]) -> int | None:
    """Side in pixels of the images that a square position embedding is for, or None if it isn't one."""
    positions, embedding = state.get("visual.positional_embedding"), state.get("visual.conv1.weight")
    if positions is None or embedding is None or positions.ndim != 2 or embedding.ndim != 4:
        return None
    patches = len(positions) - 1
    side = isqrt(max(patches, 0))
    return side * embedding.shape[-1] if side and side * side == patches else None


def names_of(found: Architecture, size: int | None, quick_gelu: bool) -> list[str]:
    """open_clip's names of supported models with that architecture; of that size only, if there are any."""
    configs = {name: model_config(name) for name in model_names()}
    fitting = {
        name: config["vision_cfg"].get("image_size", 224)
        for name, config in configs.items()
        if config is not None
        and not why_unsupported(config)
        and bool(config.get("quick_gelu")) is quick_gelu
        and architecture_of_config(config) == found
    }
    return [name for name, side in fitting.items() if side == size] or list(fitting)


def _blocks(state: dict[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})
