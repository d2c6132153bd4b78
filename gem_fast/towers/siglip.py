"""Weights of SigLIP and SigLIP 2 in Hugging Face's folders: their names beside those of a CLIP."""

from typing import Any

from torch import Tensor

_RENAMED = {
    "vision_model.embeddings.patch_embedding.bias": "visual.conv1.bias",
    "vision_model.head.probe": "visual.attn_pool.latent",
    **{
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in (
            ("vision_model.head.attention.out_proj", "visual.attn_pool.proj"),
            ("vision_model.head.layernorm", "visual.attn_pool.norm"),
            ("vision_model.head.mlp.fc1", "visual.attn_pool.mlp.fc1"),
            ("vision_model.head.mlp.fc2", "visual.attn_pool.mlp.fc2"),
            ("text_model.head", "text_projection"),
        )
        for kind in ("weight", "bias")
    },
}


def siglip_state(state: dict[str, Tensor], model_cfg: dict[str, Any]) -> dict[str, Tensor]:
    """The weights, already in a CLIP's names where it has them, in those of `shapes.py`."""
    named = {_RENAMED.get(name, name): value for name, value in state.items()}
    width, patch = model_cfg["embed_dim"], model_cfg["vision_cfg"]["patch_size"]
    for kind in ("weight", "bias"):
        packed = named.pop(f"vision_model.head.attention.in_proj_{kind}", None)
        if packed is not None:
            named[f"visual.attn_pool.q.{kind}"], named[f"visual.attn_pool.kv.{kind}"] = packed[:width], packed[width:]
    patches = named.get("visual.conv1.weight")
    if patches is not None and patches.ndim == 2 and patches.shape[1] == 3 * patch * patch:
        named["visual.conv1.weight"] = patches.view(-1, patch, patch, 3).permute(0, 3, 1, 2)
    return named


def is_siglip(names: Any) -> bool:
    """Whether weights with these names are SigLIP's in Hugging Face's names."""
    return "vision_model.head.probe" in names and "text_model.head.weight" in names
