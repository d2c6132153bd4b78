"""Writes the weights and settings that the package ships.

All prompts share a direction of the embedding space, which says "a photo of a ..." rather than what is in it, and
backgrounds score high on it and on the prompts of empty scenes. Both directions are removed from the text projection:
what is left of a prompt tells it from other prompts and from backgrounds.

python -m tools.gem_tiny.export --work build/gem_tiny --out gem_fast/embedded/gem_tiny
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from .captions import DEFAULT, EMPTY, tokenize
from .nouns import NOUNS
from .towers import MEAN, MODEL_CFG, STD, Towers

# Settings before `choose` has measured better ones.
OPTIONS = {"gem_blocks": 7, "iterations": 1, "inverse_temperature": 7.0}
DEFAULTS = {"size": 96, "threshold": 0.8, "logit_scale": 20.0, "heatmap_threshold": 0.5}


@torch.inference_mode()
def text_projection(model: Towers, removed: int) -> Tensor:
    """The text projection P [C, E] without the first `removed` of two directions V [2, E]: P - P VT V.

    The first is the mean embedding of all nouns' prompts, the second that of the prompts of empty scenes.
    """
    texts = [[DEFAULT.format(noun.name) for noun in NOUNS], [DEFAULT.format(word) for word in EMPTY]]
    means = torch.stack([model.text(tokenize(each)).mean(0) for each in texts[:removed]] or [torch.zeros(0)])
    basis = torch.linalg.qr(means.T).Q if removed else torch.zeros(model.clip.text_projection.shape[1], 0)
    return model.clip.text_projection - model.clip.text_projection @ basis @ basis.T


def state_dict(checkpoint: dict[str, Any], weights: str, removed: int) -> dict[str, Tensor]:
    """fp16 tensors with open_clip's names, the token table as the rows it has."""
    model = Towers(checkpoint["rows"])
    model.load_state_dict({**checkpoint["model"], **(checkpoint["ema"] if weights == "ema" else {})})
    state = {name.removeprefix("clip."): p.detach() for name, p in model.named_parameters()}
    state["text_projection"] = text_projection(model, removed)
    state["token_embedding.values"] = state.pop("token_embedding.weight")
    state = {name: value.half().contiguous() for name, value in state.items()}
    return state | {"token_embedding.rows": checkpoint["rows"].int()}


def settings(previous: dict[str, Any]) -> dict[str, Any]:
    """The contents of config.json; options and defaults that were chosen before are kept."""
    return {
        "model_cfg": MODEL_CFG,
        "preprocess": {"mean": [MEAN] * 3, "std": [STD] * 3},
        "options": previous.get("options", OPTIONS),
        "defaults": previous.get("defaults", DEFAULTS),
        "vocabulary": {noun.name: list(noun.synonyms) for noun in NOUNS},
    }


def write_settings(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/gem_tiny"))
    parser.add_argument("--out", type=Path, default=Path("gem_fast/embedded/gem_tiny"))
    parser.add_argument("--weights", choices=("ema", "model"), default="ema", help="averaged or last weights")
    parser.add_argument("--removed", type=int, choices=(0, 1, 2), default=2, help="text directions taken away")
    args = parser.parse_args()
    checkpoint = torch.load(args.work / "checkpoint.pt", weights_only=True)
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(
        state_dict(checkpoint, args.weights, args.removed),
        str(args.out / "model.safetensors"),
        metadata={"format": "pt"},
    )
    (args.out / "model.safetensors").chmod(0o644)
    path = args.out / "config.json"
    write_settings(path, settings(json.loads(path.read_text()) if path.exists() else {}))
    print(f"{args.out / 'model.safetensors'}: {(args.out / 'model.safetensors').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
