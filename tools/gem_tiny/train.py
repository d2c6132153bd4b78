"""Trains gem-tiny from scratch on captions of generated scenes: no mask, box or position is ever used.

    nice python -m tools.gem_tiny.train --work build/gem_tiny

A checkpoint is written every few minutes and on SIGTERM; the same command goes on from it. `--stages` may be changed
between runs, to finish earlier or later: every learning rate is a function of the images seen.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captions import caption, prompts, token_rows, tokenize
from .nouns import TRAINING_STYLES
from .scenes import Drawings, Scenes, random_scenes
from .towers import Towers

STAGES = "32:1:166400,48:2:121472,64:3:120000:96"


@dataclass(frozen=True, slots=True)
class Stage:
    size: int
    objects: int
    images: int
    batch: int

    @property
    def steps(self) -> int:
        return self.images // self.batch

    @property
    def cost(self) -> float:
        """Work of one step, in 32-px images."""
        return self.batch * (self.size / 32) ** 2


def parse_stages(text: str) -> list[Stage]:
    """`size:most objects in a scene:images[:batch]`, separated by commas."""
    return [Stage(*map(int, (*part.split(":"), "128")[:4])) for part in text.split(",")]


def locate(stages: list[Stage], done: list[int]) -> tuple[int, float]:
    """The stage to go on with (past the end when all is done) and the share of all work done, 0..1."""
    spent = sum(stage.cost * min(n, stage.steps) for stage, n in zip(stages, done, strict=True))
    total = sum(stage.cost * stage.steps for stage in stages)
    current = next((i for i, stage in enumerate(stages) if done[i] < stage.steps), len(stages))
    return current, spent / total


def losses(model: Towers, scenes: Scenes, rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """InfoNCE on captions, the softmax over the single-noun prompts, and how often that picks a present noun."""
    named = [[int(noun) for noun in row if noun >= 0] for row in scenes.nouns]
    tokens = tokenize([caption(nouns, rng) for nouns in named] + prompts(rng))
    with torch.autocast("cpu", torch.bfloat16):
        image, text = model.image(scenes.images), model.text(tokens)
    scale = model.clip.logit_scale.exp().clamp(max=100)
    captions, nouns = text[: len(image)], text[len(image) :]
    present = scenes.presence()
    same = (present[:, None] == present[None]).all(-1).float()
    target = same / same.sum(-1, keepdim=True)
    logits = scale * image @ captions.T
    contrastive = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    logits = scale * image @ nouns.T
    share = present.float() / present.sum(-1, keepdim=True)
    right = present.gather(1, logits.argmax(-1, keepdim=True)).float().mean()
    return contrastive, F.cross_entropy(logits, share), right


def optimizer_for(model: nn.Module, decay: float) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    plain = [p for name, p in model.named_parameters() if p.ndim < 2 or "embedding" in name]
    matrices = [p for name, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in name]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)


class Trainer:
    """Everything that a checkpoint holds, and one step of it."""

    def __init__(self, args: argparse.Namespace):
        torch.manual_seed(args.seed)
        self.args = args
        self.rows = token_rows()
        self.model = Towers(self.rows)
        self.ema = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.optimizer = optimizer_for(self.model, args.weight_decay)
        self.stages = parse_stages(args.stages)
        self.done = [0] * len(self.stages)
        self.seconds = 0.0
        self.drawings = Drawings(args.work / "icons96.npz", TRAINING_STYLES)
        self.path = args.work / "checkpoint.pt"
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        saved = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.ema, self.seconds = saved["ema"], saved["seconds"]
        self.done = (saved["done"] + [0] * len(self.stages))[: len(self.stages)]

    def save(self) -> None:
        state: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"ema": self.ema, "done": self.done, "seconds": self.seconds, "rows": self.rows}
        torch.save(state, self.path.with_suffix(".part"))
        self.path.with_suffix(".part").replace(self.path)

    def step(self) -> dict[str, float]:
        """One optimisation step; its scenes and captions depend on the seed and the step only."""
        current, progress = locate(self.stages, self.done)
        stage, number = self.stages[current], sum(self.done)
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + number)
        rng = random.Random(self.args.seed * 1_000_003 + number)
        counts = tuple(range(1, stage.objects + 1)) * 2
        if current + 1 == len(self.stages):  # empty scenes teach what a background is, one in seven
            counts += (0,)
        stylise = stage.size > 32  # the first stage is the drawings as they are: styles come once nouns are known
        scenes = random_scenes(self.drawings, stage.batch, stage.size, counts, generator, stylise)
        rate = self.args.lr * min(1.0, (number + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        contrastive, single, right = losses(self.model, scenes, rng)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(contrastive + single)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        decay = min(0.998, (number + 1) / (number + 20))
        parameters = dict(self.model.named_parameters())
        torch._foreach_lerp_(list(self.ema.values()), [parameters[name].detach() for name in self.ema], 1 - decay)
        self.done[current] += 1
        return {
            "contrastive": contrastive.item(),
            "single": single.item(),
            "right": right.item(),
            "lr": rate,
            "size": stage.size,
            "batch": stage.batch,
            "progress": progress,
        }


def train(trainer: Trainer, log: Path, every: int = 50, save_every: int = 250) -> None:
    """Steps until every stage is done or SIGTERM; a line of JSON for every `every` steps."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    seen, sums = 0, {"contrastive": 0.0, "single": 0.0, "right": 0.0}
    while not stop and locate(trainer.stages, trainer.done)[0] < len(trainer.stages):
        start = time.perf_counter()
        result = trainer.step()
        trainer.seconds += time.perf_counter() - start
        seen += 1
        sums = {key: value + result[key] for key, value in sums.items()}
        number = sum(trainer.done)
        if number % every == 0:
            line = {"step": number, "size": result["size"], "progress": result["progress"], "lr": result["lr"]}
            line |= {key: value / seen for key, value in sums.items()}
            line |= {"scale": trainer.model.clip.logit_scale.exp().item(), "seconds": trainer.seconds}
            with log.open("a") as file:
                file.write(json.dumps({key: round(value, 5) for key, value in line.items()}) + "\n")
            seen, sums = 0, dict.fromkeys(sums, 0.0)
        if number % save_every == 0:
            trainer.save()
    trainer.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/gem_tiny"))
    parser.add_argument("--stages", default=STAGES, help=parse_stages.__doc__)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(Trainer(args), args.work / "train.jsonl")


if __name__ == "__main__":
    main()
