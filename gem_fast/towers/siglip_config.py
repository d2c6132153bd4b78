"""SigLIP and SigLIP 2 in Hugging Face's folders: their configurations. Needs no torch.

SigLIP 2 of a fixed size is a `siglip` there too; `siglip2` is NaFlex, with patches in front of a linear layer and
positions that are resampled bilinearly.
"""

from math import isqrt
from typing import Any

from ..errors import ModelError
from .hugging_face import check_activation, part_of, tower_settings
from .preprocessing import HALVED_IMAGES
from .vision_config import VisionConfig

SIGLIP = "siglip"  # the key of a model config that is of such a folder
KINDS = ("siglip", "siglip2")
_SHARED: dict[str, Any] = {  # defaults of transformers' configurations, which saved ones leave out
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_VISION = _SHARED | {"image_size": 224, "patch_size": 16, "num_patches": 256, "num_channels": 3}
_TEXT = _SHARED | {"vocab_size": 32000, "max_position_embeddings": 64}
_NO_SIZES = ("hidden_act", "layer_norm_eps")
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_GEMMA_WORDS = 256000  # tokens of SigLIP 2's tokenizer


def siglip_config(config: dict[str, Any], tokenizer: dict[str, Any], label: str) -> dict[str, Any]:
    """The model config of a `config.json`, given the folder's `tokenizer_config.json`, if any.

    Raises:
        ModelError: it has settings that SigLIP's towers here don't have.
    """
    vision, text = (part_of(config, name, known) for name, known in (("vision", _VISION), ("text", _TEXT)))
    for part in (vision, text):
        sizes = [value for name, value in part.items() if name not in _NO_SIZES]
        epsilon = part["layer_norm_eps"]
        if (
            any(type(size) is not int or not 0 < size < 1 << 24 for size in sizes)
            or part["num_hidden_layers"] > 1 << 10
        ):
            raise ModelError(f"{label}: its config.json has sizes that can't be used")
        if part["hidden_size"] % part["num_attention_heads"] or not isinstance(epsilon, float) or not 0 < epsilon < 1:
            raise ModelError(f"{label}: its config.json has heads or a layer_norm_eps that don't fit")
        check_activation(label, part["hidden_act"], _ACTIVATIONS)
    if vision["num_channels"] != 3:
        raise ModelError(f"{label}: its images have {vision['num_channels']} channels, not 3")
    flexible = config["model_type"] == "siglip2"
    size = isqrt(vision["num_patches"]) * vision["patch_size"] if flexible else vision["image_size"]
    kind = str(tokenizer.get("tokenizer_class", ""))
    second = flexible or text["vocab_size"] == _GEMMA_WORDS or "Siglip2" in kind or "Gemma" in kind
    return {
        SIGLIP: {
            "flexible": flexible,
            "heads": vision["num_attention_heads"],
            "mlp_width": vision["intermediate_size"],
        },
        "embed_dim": vision["hidden_size"],
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": size, "patch_size": vision["patch_size"], **tower_settings(vision)},
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "heads": text["num_attention_heads"],
            "hf_tokenizer_name": f"timm/ViT-B-16-SigLIP{'2' * second}",
            # As each was trained: SigLIP 2's texts keep their punctuation.
            "tokenizer_kwargs": {"clean": "lower" if second else "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            **tower_settings(text),
        },
    }


def siglip_images(config: dict[str, Any], model_cfg: dict[str, Any]) -> dict[str, Any]:
    """A `preprocessor_config.json` with the defaults of SigLIP's image processors."""
    usual = {"image_mean": HALVED_IMAGES.mean, "image_std": HALVED_IMAGES.std}
    return usual | {"resample": 2 if model_cfg[SIGLIP]["flexible"] else 3} | config


def siglip_vision(model_cfg: dict[str, Any]) -> VisionConfig:
    """The shape of the image tower."""
    vision, own = model_cfg["vision_cfg"], model_cfg[SIGLIP]
    side = vision["image_size"] // vision["patch_size"]
    activation = "gelu_tanh" if vision.get("act_kwargs") else "gelu"
    return VisionConfig(
        width=vision["width"],
        layers=vision["layers"],
        heads=own["heads"],
        mlp_width=own["mlp_width"],
        patch_size=vision["patch_size"],
        grid=(side, side),
        embed_dim=vision["width"],
        activation=activation,
        norm_eps=vision["norm_kwargs"]["eps"],
        pre_norm=False,
        class_token=False,
        patch_bias=True,
        projection=False,
        pool="attention",
        pool_heads=own["heads"],
        pool_mlp_width=own["mlp_width"],
        pool_activation=activation,
        resampling="bilinear" if own["flexible"] else "bicubic",
    )
