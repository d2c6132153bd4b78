"""How exactly ONNX Runtime gives the engine's features and labels: `python -m gem_fast.bench.onnx_agreement`.

ViT-B/16 with random weights at 448×448, three of the package's sample images, random text embeddings: a Markdown table.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from gem_fast.export.attention import make_layers
from gem_fast.export.builder import GraphBuilder
from gem_fast.export.checked_session import open_session
from gem_fast.export.checking import sample_images
from gem_fast.export.comparison import compare, labeller
from gem_fast.export.export_options import FIRST_ATTENTION_OPSET, OPSETS
from gem_fast.export.image_encoder import write_image_encoder
from gem_fast.export.plain import plain_torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from gem_fast.preprocess import to_pixels

from .bench_onnx import engine
from .machine import machine_line

SIZE = (448, 448)
IMAGES = 3
CLASSES = (20, 150)
LOGIT_SCALE = 100.0


def ways() -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Type, opset and what else `make_layers` takes: every attention with every opset in fp32, then the other types."""
    for attention in ("ort", "onnx", "portable"):
        for opset in OPSETS:
            if attention != "onnx" or opset >= FIRST_ATTENTION_OPSET:
                yield "fp32", opset, {"attention": attention}
    for dtype in ("fp16", "bf16"):
        yield dtype, OPSETS[0], {"attention": "ort", "dtype": dtype}
    yield "int8", OPSETS[0], {"attention": "ort", "quantize": "int8"}


def figures(result: Any, truth: Tensor, words: Tensor) -> Iterator[str]:
    """The relative error, and the share of equal labels for each number of classes."""
    where: dict[str, Any] = {"graph": "", "output": "", "size": None, "batch": IMAGES, "input": ""}
    yield f"{compare(result, truth, **where).relative:.1e}"
    for classes in CLASSES:
        yield f"{compare(result, truth, labeller(words[:classes], SIZE, LOGIT_SCALE), **where).labels:.4%}"


@torch.inference_mode()
def main() -> None:
    images = torch.stack([to_pixels(i, SIZE, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD) for i in sample_images(IMAGES)])
    truth = engine()(images).patches
    generator = torch.Generator().manual_seed(0)
    words = F.normalize(torch.randn(max(CLASSES), truth.shape[-1], generator=generator), dim=-1)
    print(machine_line())
    heads = ["relative error", *(f"equal labels of {classes}" for classes in CLASSES)]
    print(f"| graph | opset | {' | '.join(heads)} |\n|{'---|' * (2 + len(heads))}")
    with TemporaryDirectory() as folder:
        for kind, opset, options in ways():
            graph = GraphBuilder(opset)
            write_image_encoder(make_layers(graph, **options), engine(), SIZE, original=False)
            path = Path(folder, "image_encoder.onnx")
            path.write_bytes(graph.model("image_encoder", {}).SerializeToString())
            session = open_session(path, emulated=kind == "bf16")
            found = figures(session.run(None, {"pixels": images.numpy()})[0], truth, words)
            print(f"| {kind}, {options['attention']} | {opset} | {' | '.join(found)} |", flush=True)
    for kind in ("fp32", "fp16", "bf16", "int8"):
        found = figures(plain_torch(engine(), kind)(images).patches, truth, words)
        print(f"| {kind}, PyTorch alone | | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
