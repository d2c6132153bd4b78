"""A small text tower and its tokenizer."""

import open_clip
import torch

from gem_fast.towers.text_config import text_config
from gem_fast.towers.text_tower import pack_text

TINY = {"context_length": 32, "vocab_size": 64, "width": 64, "heads": 1, "layers": 2}


def tiny_clip(seed=0, quick_gelu=False):
    """A text tower of two layers, with weights large enough that every part of it shows in the result."""
    torch.manual_seed(seed)
    clip = open_clip.CLIP(8, {"image_size": 8, "layers": 1, "width": 64, "patch_size": 8}, TINY, quick_gelu=quick_gelu)
    for parameter in clip.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    del clip.visual
    return clip.requires_grad_(False).eval()


def own_tower(clip):
    """Our tower with the weights of open_clip's."""
    config = text_config({"embed_dim": 8, "text_cfg": TINY, "quick_gelu": _is_quick(clip)})
    return pack_text(text_state(clip), config)


def text_state(clip):
    """open_clip's weights of the text tower, as copies."""
    return {
        name: value.detach().clone()
        for name, value in clip.state_dict().items()
        if not name.startswith(("visual.", "logit_"))
    }


def _is_quick(clip):
    return type(clip.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


class Letters:
    """A tokenizer: a token a letter, 63 as end of text, padded with 0; `seen` has each batch of texts."""

    context_length = TINY["context_length"]

    def __init__(self):
        self.seen = []

    def __call__(self, texts):
        self.seen.append(list(texts))
        rows = [[*self.encode(text[: self.context_length - 2]), 63] for text in texts]
        return torch.tensor([row + [0] * (self.context_length - len(row)) for row in rows])

    def encode(self, text):
        return [ord(letter) % 60 + 1 for letter in text]

    def clean_fn(self, text):
        return text


letters = Letters()
