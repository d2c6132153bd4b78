"""A small BLIP: transformers' own class, its weights also under Salesforce's names, and a vocabulary."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from tests.towers.families import scatter

VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 7,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 8,
    "layer_norm_eps": 1e-6,
}
TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "bos_token_id": 1,
    "sep_token_id": 3,
    "eos_token_id": 3,
}
BERT = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "pad_token": "[PAD]"}
WORDS = [
    *("[PAD]", "[unused0]", "[UNK]", "[SEP]", "[CLS]", "[MASK]", "a", "photo", "of", "cat", "dog", "red", "car"),
    *("##s", "un", "##known", "猫", "!", ",", "."),
]


def make_blip():
    """transformers' `BlipForImageTextRetrieval`, cut and with random weights."""
    transformers = pytest.importorskip("transformers", reason="the truth is transformers' own model")
    torch.manual_seed(5)
    config = transformers.BlipConfig(vision_config=VISION, text_config=TEXT, image_text_hidden_size=24)
    return scatter(transformers.BlipForImageTextRetrieval(config).eval())


def embeddings(model, pixels, tokens, interpolate=False):
    """The model's own embeddings of images and of texts, whose padding is the token 0."""
    images = model.vision_model(pixels, interpolate_pos_encoding=interpolate).last_hidden_state[:, 0]
    texts = model.text_encoder(input_ids=tokens, attention_mask=(tokens != 0).long()).last_hidden_state[:, 0]
    unit = torch.nn.functional.normalize
    return unit(model.vision_proj(images), dim=-1), unit(model.text_proj(texts), dim=-1)


def write_transformers(folder, model):
    """A folder as transformers writes it, with a vocabulary."""
    model.save_pretrained(folder)
    write_vocabulary(folder)
    return folder


def write_vocabulary(folder):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(BERT))
    return folder / "vocab.txt"


def salesforce_state(model, temperature=0.02):
    """The weights as Salesforce's retrieval checkpoints have them, with what training leaves beside them."""
    rules = (
        (r"vision_model\.embeddings\.class_embedding", "visual_encoder.cls_token"),
        (r"vision_model\.embeddings\.position_embedding", "visual_encoder.pos_embed"),
        (r"vision_model\.embeddings\.patch_embedding", "visual_encoder.patch_embed.proj"),
        (r"vision_model\.encoder\.layers", "visual_encoder.blocks"),
        (r"self_attn\.qkv", "attn.qkv"),
        (r"self_attn\.projection", "attn.proj"),
        (r"layer_norm", "norm"),
        (r"vision_model\.post_layernorm", "visual_encoder.norm"),
    )
    state = {}
    for name, value in model.state_dict().items():
        if not name.startswith("text_"):
            for pattern, target in rules:
                name = re.sub(pattern, target, name)
        state[name] = value.clone()
    momentum = {f"{name.split('.')[0]}_m.{name.partition('.')[2]}": value for name, value in state.items()}
    momentum = {name: value for name, value in momentum.items() if not name.startswith("itm_head")}
    queues = {"image_queue": torch.randn(24, 10), "idx_queue": torch.zeros(1, 10), "ptr_queue": torch.zeros(1).long()}
    return {**state, **momentum, **queues, "temp": torch.tensor(temperature)}


def write_salesforce(path, model, temperature=0.02):
    state = salesforce_state(model, temperature)
    if path.suffix == ".safetensors":
        save_file({name: value.clone() for name, value in state.items()}, path)
    else:
        torch.save({"model": state, "epoch": 3}, path)
    return path
