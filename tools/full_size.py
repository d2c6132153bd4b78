"""Full-size models with random weights: time and peak memory of a forward, and memory of loading a file.

    python -m tools.full_size                          # the table of docs/models.md: a row a model, a process each
    python -m tools.full_size --loading ViT-L-14       # a file of its weights, written, read again, and removed

Nothing is fetched: tokenizers are made here, of words that no text needs.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODELS = (
    "blip-base",
    "blip-large",
    "ViT-SO400M-14-SigLIP",
    "ViT-B-16-SigLIP2",
    "ViT-H-14-worldwide",
    "ViT-L-14-CLIPA",
    "MobileCLIP2-L-14",
    "roberta-ViT-B-32",
    "PE-Core-L-14-336",
    "EVA02-L-14",
    "coca_ViT-L-14",
)
_ROUNDS = 2  # forwards, of which the fastest counts
_OWN_WORDS = ("blip", "SigLIP", "worldwide", "CLIPA", "roberta")  # of names whose tokenizer is not CLIP's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names (default: one of each family)")
    parser.add_argument("--loading", metavar="NAME", help="memory of loading a file of this model's weights")
    for tower in ("dtype", "text-dtype"):
        parser.add_argument(f"--{tower}", default="float32", help="with --loading, as gem_fast.load takes it")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        if asked.child:
            print(json.dumps(forward(asked.models[0], Path(folder))))
        elif asked.loading:
            print(loading(asked.loading, [asked.dtype, asked.text_dtype], Path(folder)))
        else:
            print(
                f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
            )
            print("| model | parameters, image and text | input | an image | peak memory | load of the machine |")
            print("|---|---|---|---|---|---|")
            for name in asked.models or MODELS:
                print(row(name), flush=True)


def row(name: str) -> str:
    """A line of the table, measured in a process of its own."""
    command = [sys.executable, "-m", "tools.full_size", "--child", name]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    size, counts = told["size"], " M, ".join(f"{count / 1e6:,.0f}" for count in told["parameters"])
    figures = f"{size}×{size} | {told['seconds']:.1f} s | {told['peak'] / 1e9:.1f} GB | {told['load']:.1f}"
    return f"| `{name}` | {counts} M | {figures} |"


def forward(name: str, folder: Path) -> dict[str, object]:
    """Load with random weights, encode a text, and read an image at the model's default size."""
    import torch

    import gem_fast

    torch.manual_seed(0)
    model = gem_fast.load(name, "random", tokenizer=words(folder) if own_words(name) else None)
    model.encode_text("cat")
    size = model.defaults.size
    pixels = torch.randn(1, 3, size, size)
    seconds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        model.features(pixels)
        seconds.append(time.perf_counter() - start)
    return {
        "size": size,
        "seconds": min(seconds),
        "parameters": [sum(each.numel() for each in tower.parameters()) for tower in (model.vision, model.text.tower)],
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "load": os.getloadavg()[0],
    }


_READ = """
import resource, sys
import torch, gem_fast
from gem_fast.loading import load
peak = lambda: int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
before = peak()
name, weights, tokenizer, dtype, text_dtype = sys.argv[1:]
types = {"dtype": dtype, "text_dtype": text_dtype}
model = gem_fast.load(name, weights=weights, tokenizer=tokenizer or None, **types)
parameters = [*model.vision.parameters(), *model.text.tower.parameters()]
held = sum(each.numel() * each.element_size() for each in parameters)
print(held, peak() - before)
"""


def loading(name: str, types: list[str], folder: Path) -> str:
    """How much memory loading takes at its peak, above what importing took, over the size of the model in its types,
    which are those of the image tower and of the text tower."""
    import torch
    from safetensors.torch import save_file

    from gem_fast.towers.building import build_towers, text_maker
    from gem_fast.towers.configs import find_config

    config = find_config(name).model_cfg
    file, prefix = folder / "weights.safetensors", "text." if config.get("custom_text") else ""
    state = {f"visual.{key}": value for key, value in build_towers(name, config, None, ()).vision_state.items()}
    state |= {f"{prefix}{key}": value for key, value in text_maker(name, config, ()).random().items()}
    save_file({key: value.contiguous() for key, value in state.items() if value.dtype == torch.float32}, file)
    del state
    tokenizer = str(words(folder)) if own_words(name) else ""
    done = subprocess.run(
        [sys.executable, "-c", _READ, name, str(file), tokenizer, *types], check=True, capture_output=True, text=True
    )
    held, taken = map(int, done.stdout.split())
    figures = f"{held / 1e9:.2f} GB of weights, {taken / 1e9:.2f} GB taken, {taken / held:.2f} times"
    return f"{name}, {' and '.join(types)}: {figures}"


def own_words(name: str) -> bool:
    return any(part in name for part in _OWN_WORDS)


def words(folder: Path) -> Path:
    """A tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "</s>": 2, "cat": 3}, unk_token="<unk>"))
    made.add_special_tokens(["<pad>"])
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


if __name__ == "__main__":
    main()
