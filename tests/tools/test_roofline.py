"""The roofline on paper: its count of the work, its arithmetic and its page."""

from dataclasses import replace

import open_clip
import pytest
import torch
from gem_fast.bench.work import Task, Work, forward
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gem_fast.options import GemOptions
from gem_fast.towers.served import vision_config
from gem_fast.towers.vision_config import VisionConfig
from gem_fast.towers.vit import GemVisionTransformer
from tools import roofline
from tools.roofline import A100, A6000, H100, H200


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-L-14", "ViT-H-14"])
@pytest.mark.parametrize(
    "options",
    [GemOptions(), GemOptions(iterations=0, gem_blocks=1), GemOptions(iterations=2, projections="q", gem_blocks=3)],
    ids=["paper", "no-iteration", "q-twice"],
)
def test_products_are_those_that_torch_counts(name, options):
    """On the meta device, with attention taken apart into its products; scores are not part of the tower."""
    config = vision_config(open_clip.get_model_config(name))
    config = replace(config, grid=(448 // config.patch_size,) * 2)  # position embeddings are not resampled
    with torch.device("meta"):
        tower, pixels = GemVisionTransformer(config, options, "sdpa"), torch.empty(2, 3, 448, 448)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        tower(pixels)
    works = [work for work in forward(Task(config, 2, 448, options)) if work.kernel != "scores"]
    assert sum(work.times * work.flop for work in works) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("options", "attention"),
    [
        (GemOptions(gem_blocks=1), 4),  # q, k, v in, the output out, whatever happens between
        (GemOptions(gem_blocks=1, iterations=2), 4),
        (GemOptions(gem_blocks=1, iterations=0), 4),
        (GemOptions(gem_blocks=1, iterations=1, projections="qk"), 4),
        (GemOptions(gem_blocks=1, iterations=1, projections="v"), 2),
    ],
    ids=["once", "twice", "none", "qk", "v"],
)
def test_bytes_are_weights_once_and_activations_once_out_and_once_in(options, attention):
    """One block, in elements by hand: what each kernel of a fused forward reads and writes."""
    C, M, E, classes, B, N = 8, 32, 4, 5, 2, 17
    config = VisionConfig(width=C, layers=1, heads=2, mlp_width=M, patch_size=2, grid=(4, 4), embed_dim=E)
    moved = {}
    for work in forward(Task(config, B, 8, options, item=1, classes=classes)):
        moved[work.kernel] = moved.get(work.kernel, 0) + work.times * work.bytes
    needed = attention - 1  # projections of the only block, whose unchanged path ends in nothing
    patches = B * (N - 1)
    assert moved.pop("iterations", 0) + moved.pop("assignment") == attention * B * N * C
    assert moved == {
        "patch embedding": patches * 12 + 12 * C + patches * C + N * C,
        "LayerNorm": 2 * 2 * B * N * C,  # before the block, and before its attention
        "QKV": B * N * C + needed * C * C + needed * B * N * C,
        "q·k attention": 0,
        "out": B * N * C + C * C + 2 * B * N * C,  # its input, the residual and the sum
        "MLP": 0,
        "head": 2 * B * N * C + B * N * C + C * E + B * N * E,  # the class token's beside the patches'
        "scores": patches * E + E * classes + patches * classes,
        "labels": patches * classes * 4 + B * 64 * 8,
    }


def test_a_weight_that_both_paths_share_is_read_once_a_batch():
    """A second block with GEM adds no second read of its `out`."""
    config = VisionConfig(width=8, layers=2, heads=2, mlp_width=32, patch_size=2, grid=(4, 4), embed_dim=4)
    out = sum(
        work.times * work.bytes
        for work in forward(Task(config, 1, 8, GemOptions(gem_blocks=2), item=1))
        if work.kernel == "out"
    )
    assert out == 2 * 8 * 8 + 3 * (3 * 17 * 8)  # two weights; three products of 17 tokens with their residuals


def test_exponentials_are_one_for_each_logit_and_each_pixel_of_each_class():
    config = vision_config(open_clip.get_model_config("ViT-B-16"))
    by_kernel = {work.kernel: work.times * work.exp for work in forward(Task(config, 1, 448, classes=10)) if work.exp}
    logits = 12 * 785**2
    assert by_kernel == {
        "q·k attention": 11 * logits, "iterations": 18 * logits, "assignment": 18 * logits, "labels": 448 * 448 * 10,
    }  # fmt: skip


def test_published_peaks_agree_with_the_clocks_of_their_tensor_cores():
    per_clock = [gpu.tensor_per_clock for gpu in (A6000, A100, H100, H200)]
    assert per_clock == pytest.approx([1024, 2048, 4096, 4096], rel=0.01)


def test_the_floor_is_the_slowest_resource():
    work = Work("any", flop=989.4e9, bytes=3.35e6, exp=1e6, fma=1e6, times=2)
    limit = roofline.floor(work, H100)
    assert limit["tensor"] == pytest.approx(2.0)
    assert limit["bytes"] == pytest.approx(0.002)
    assert max(limit, key=limit.get) == "tensor"
    limit = roofline.floor(Work("any", 1, 1e9), H100)
    assert max(limit, key=limit.get) == "bytes"


def test_the_report_has_every_case_and_says_that_it_is_predicted(tmp_path):
    roofline.main(str(tmp_path))
    page = (tmp_path / "roofline.md").read_text()
    assert "**Predicted, not measured**" in page
    assert page.count("\n### ") == 6
    totals = page.split("## The forward")[1].split("## Kernel by kernel")[0]
    rows = [line.strip("| ").split(" | ") for line in totals.splitlines() if line.startswith("| ViT")]
    assert len(rows) == 2 * 3 * 4
    for *_, floor, own in rows:
        assert 0 < float(own) < float(floor)
