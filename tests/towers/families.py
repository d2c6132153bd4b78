"""Small models of each family: open_clip's and timm's own classes, cut in layers, width and vocabulary."""

import json
from functools import partial

import open_clip
import torch
from safetensors.torch import save_file
from timm.layers import LayerNorm
from timm.models import eva, register_model, vision_transformer

WORDS = 64  # tokens of the text towers
_TEXT = {"context_length": 12, "vocab_size": WORDS, "width": 32, "heads": 2, "layers": 2}
_SIGLIP_TEXT = _TEXT | {
    "hf_tokenizer_name": "someone/siglip",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
}
_HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3}


def _vit(**settings):
    def make(pretrained=False, **arguments):
        return vision_transformer._create_vision_transformer("vit_base_patch16_224", **settings | arguments)

    return make


def _eva(**settings):
    def make(pretrained=False, **arguments):
        return eva._create_eva("eva02_base_patch16_clip_224", **settings | arguments)

    return make


_SMALL = {"img_size": 48, "patch_size": 8, "depth": 7}
_SIGLIP = _SMALL | {"class_token": False, "global_pool": "map"}
_PE = _SMALL | {
    "embed_dim": 64,
    "num_heads": 2,
    "attn_type": "rope",
    "global_pool": "map",
    "use_pre_transformer_norm": True,
    "use_rot_pos_emb": True,
    "ref_feat_shape": (4, 3),
    "rope_grid_indexing": "xy",
    "attn_pool_num_heads": 4,
    "attn_pool_mlp_ratio": 4.0,
    "norm_layer": partial(LayerNorm, eps=1e-5),
}
_EVA02 = _SMALL | {
    "embed_dim": 64,
    "num_heads": 2,
    "qkv_fused": False,
    "mlp_ratio": 8 / 3,
    "swiglu_mlp": True,
    "scale_mlp": True,
    "scale_attn_inner": True,
    "use_rot_pos_emb": True,
    "ref_feat_shape": (4, 3),
}
_TRUNKS = {
    "gem_test_siglip": _vit(**_SIGLIP, embed_dim=64, num_heads=1),
    # head width 72, an MLP of no round width and the tanh GELU, as SO400M has them
    "gem_test_siglip_wide": _vit(**_SIGLIP, embed_dim=144, num_heads=2, mlp_ratio=3.7362, act_layer="gelu_tanh"),
    "gem_test_mobileclip": _vit(
        **_SMALL, embed_dim=64, num_heads=1, pre_norm=True, norm_layer=partial(LayerNorm, eps=1e-5)
    ),
    "gem_test_pe": _eva(**_PE, rope_grid_offset=1.0),
    "gem_test_pe_bare": _eva(**_PE, class_token=False),
    "gem_test_eva02": _eva(**_EVA02),
    "gem_test_eva01": _eva(**_SMALL, embed_dim=88, num_heads=1, mlp_ratio=6144 / 1408),
}
for _name, _make in _TRUNKS.items():
    _make.__name__, _make.__module__ = _name, __name__
    globals()[_name] = _make
    register_model(_make)


def _trunk(name, pool="token", proj=None):
    return {"image_size": 48, "timm_model_name": name, "timm_pool": pool, "timm_proj": proj}


_PLAIN = {"image_size": 48, "layers": 7, "width": 64, "head_width": 32, "patch_size": 8}
CONFIGS = {
    "siglip": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": _trunk("gem_test_siglip", "map", "none"),
        "text_cfg": _SIGLIP_TEXT,
    },
    "siglip-wide": {
        "embed_dim": 144,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": _trunk("gem_test_siglip_wide", "map", "none"),
        "text_cfg": _SIGLIP_TEXT | {"width": 144, "proj_type": "none", "proj_bias": False},
    },
    "mobileclip2": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": _trunk("gem_test_mobileclip"),
        "text_cfg": _TEXT | {"no_causal_mask": True, "vocab_size": 49408},
    },
    "clipa": {
        "embed_dim": 24,
        "vision_cfg": _PLAIN | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": _TEXT
        | {
            "hf_tokenizer_name": "bert-base-uncased",
            "tokenizer_kwargs": {"strip_sep_token": True},
            "pool_type": "last",
            "no_causal_mask": True,
        },
    },
    "metaclip2": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": _PLAIN,
        "text_cfg": _TEXT | {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "eos_id": 2},
    },
    "pe": {"embed_dim": 24, "custom_text": True, "vision_cfg": _trunk("gem_test_pe", "map"), "text_cfg": _TEXT},
    "pe-bare": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": _trunk("gem_test_pe_bare", "map"),
        "text_cfg": _TEXT,
    },
    "eva02": {"embed_dim": 24, "custom_text": True, "vision_cfg": _trunk("gem_test_eva02"), "text_cfg": _TEXT},
    "coca": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": _PLAIN
        | {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 3, "output_tokens": True},
        "text_cfg": _TEXT | {"embed_cls": True, "output_tokens": True, "vocab_size": 49408},
        "multimodal_cfg": {"context_length": 12, "vocab_size": 64, "width": 24, "heads": 2, "layers": 1},
    },
    "eva01": {"embed_dim": 24, "custom_text": True, "vision_cfg": _trunk("gem_test_eva01"), "text_cfg": _TEXT},
}


def make_model(config):
    """open_clip's model of a config, every weight of which shows in the result."""
    torch.manual_seed(3)
    copied = json.loads(json.dumps(config))
    kind = open_clip.CustomTextCLIP if copied.pop("custom_text", False) else open_clip.CLIP
    kind = open_clip.CoCa if "multimodal_cfg" in copied else kind
    model = kind(**copied).eval()
    scatter(model)
    return model


def scatter(model):
    """Random weights that no layer hides: of the norms near 1, of all else large enough."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=min(0.2, 1.5 / parameter.shape[-1] ** 0.5))
            else:
                parameter += 0.1 * torch.randn_like(parameter) if parameter.ndim else 0
    return model.requires_grad_(False)


def write_folder(folder, model, config, tokenizer=None):
    """A folder as open_clip writes it, with a tokenizer's file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": _HALVES}))
    state = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def word_tokenizer(end="</s>", padding="<pad>"):
    """A self-made tokenizer of words: ids below `WORDS`, an end behind each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [padding, end, "<unk>", *["a", "photo", "of", "the", "cat", "dog", "red", "car", "in", "bus", "tree"]]
    vocabulary = {word: index for index, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.add_special_tokens([padding, end, "<unk>"])
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, vocabulary[end])])
    made.enable_padding(pad_id=vocabulary[padding], pad_token=padding)
    return made
