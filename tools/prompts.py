"""Prompts/s of the engine's text tower and of open_clip's: `python -m tools.prompts` (`make starting`).

Both have the same random weights of a ViT-B/16 and must agree; they take turns, with nothing else running.
"""

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import open_clip
import torch
from gem_fast.bench.machine import machine_line
from gem_fast.bench.tables import markdown_table
from torch import Tensor

from gem_fast.towers.clip_tokenizer import ClipTokenizer
from gem_fast.towers.configs import find_config
from gem_fast.towers.layer import prepack
from gem_fast.towers.text import TextEncoder
from gem_fast.towers.text_config import text_config
from gem_fast.towers.text_tower import pack_text

_ROUNDS = 5
_MODEL = "ViT-B-16"
_TEMPLATE = "a photo of a {}."
_TEXTS = 512
_TOGETHER = 170  # texts in a pass of open_clip's, as many as the engine takes of this length
_LARGEST = {"float32": 1e-5, "bfloat16": 2e-2}  # distance of unit embeddings
_HEADS = ["text tower", "prompts/s", "times open_clip"]


def encoders(dtype: str) -> tuple[dict[str, Callable[[], Tensor]], int]:
    """The engine's text tower and open_clip's over the same texts, as unit embeddings; and the tokens of a text."""
    config = find_config(_MODEL)
    assert config is not None
    torch.manual_seed(0)
    clip = open_clip.CLIP(**config.model_cfg).requires_grad_(False).eval()
    del clip.visual
    state = {name: value.clone() for name, value in clip.state_dict().items() if name != "logit_scale"}
    tower, clip = pack_text(state, text_config(config.model_cfg)), clip.to(getattr(torch, dtype))
    own = TextEncoder(prepack(tower.to(getattr(torch, dtype))), ClipTokenizer())
    words = [f"red car {number}" for number in range(100, 100 + _TEXTS)]
    texts = [_TEMPLATE.format(word) for word in words]
    length = cut(clip, own.tokenizer(texts))

    def theirs() -> Tensor:
        passes = own.tokenizer(texts)[:, :length].split(_TOGETHER)
        return torch.cat([clip.encode_text(each, normalize=True) for each in passes]).float()

    return {f"gem_fast, {dtype}": lambda: own.averaged(words, (_TEMPLATE,)), f"open_clip, {dtype}": theirs}, length


def cut(clip: Any, tokens: Tensor) -> int:
    """Let open_clip's text tower take these tokens `[n, context]` without what fills them up: up to which they go."""
    length = int(tokens.argmax(1).max()) + 1  # the end has the highest id
    clip.positional_embedding = torch.nn.Parameter(clip.positional_embedding[:length], requires_grad=False)
    clip.attn_mask = clip.attn_mask[:length, :length]
    return length


def rows_of_texts() -> tuple[list[list[str]], int]:
    """Prompts/s of each tower in each type, in turns, and how many times open_clip's in float32; tokens of a text."""
    ways: dict[str, Callable[[], Tensor]] = {}
    for dtype, largest in _LARGEST.items():
        both, length = encoders(dtype)
        with torch.inference_mode():
            ours, theirs = (way() for way in both.values())
        if not (error := float((ours - theirs).norm() / theirs.norm())) <= largest:
            sys.exit(f"prompts: the text towers in {dtype} differ by {error:.1e}, and {largest:.0e} is allowed")
        ways |= both
    turns: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in list(ways.items()) * _ROUNDS:
        start = time.perf_counter()
        with torch.inference_mode():
            way()
        turns[name].append(time.perf_counter() - start)
    base = turns["open_clip, float32"]
    ratios = {name: median(slow / own for own, slow in zip(each, base, strict=True)) for name, each in turns.items()}
    return [[name, f"{_TEXTS / median(each):.0f}", f"{ratios[name]:.2f}"] for name, each in turns.items()], length


def main() -> None:
    """Print the table."""
    rows, length = rows_of_texts()
    print(f"{machine_line()}; {_MODEL}, {_TEXTS} texts of {length} tokens, {_ROUNDS} rounds in turns, medians\n")
    print("\n".join(markdown_table(_HEADS, rows)))


if __name__ == "__main__":
    main()
