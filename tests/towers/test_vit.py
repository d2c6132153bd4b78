"""The forward against float64: GEM's path by the paper's equations, the original path by open_clip itself."""

import copy
import functools
from unittest import mock

import open_clip
import pytest
import torch
from gem_fast.kernels.attention import self_self
from gem_fast.kernels.backends import Backend, Operation
from gem_fast.kernels.cpu_library import why_missing

from gem_fast.options import GemOptions
from gem_fast.towers.block import Block
from gem_fast.towers.eager import eager_gem
from gem_fast.towers.packing import pack_vision
from gem_fast.towers.served import vision_config
from gem_fast.towers.vit import GemVisionTransformer, unfolded

needs_cpu = pytest.mark.skipif(why_missing() is not None, reason=f"cpu can't serve: {why_missing()}")
SUBSETS = ["q", "k", "v", "qk", "qv", "kv", "qkv"]
L14_FEW_LAYERS = {
    "embed_dim": 768,
    "vision_cfg": {"image_size": 224, "layers": 3, "width": 1024, "patch_size": 14},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
}
SMALL = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 48, "layers": 4, "width": 128, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
}


def shrunk(**vision):
    return {**SMALL, "vision_cfg": {**SMALL["vision_cfg"], **vision}}


MODELS = {
    "B32": open_clip.get_model_config("ViT-B-32"),
    "B16": open_clip.get_model_config("ViT-B-16"),
    "B16-quickgelu": open_clip.get_model_config("ViT-B-16-quickgelu"),
    "L14-3-layers": L14_FEW_LAYERS,
    "small": SMALL,
    "small-two-layers": shrunk(layers=2),
    "small-layerscale": shrunk(ls_init_value=0.5),
    "small-H14-heads": shrunk(width=160, head_width=80, mlp_ratio=4.9231),
    "small-bigG-heads": shrunk(width=208, head_width=104),
    "small-g14-heads": shrunk(width=176, head_width=88, mlp_ratio=4.3637),
    "small-no-ln-pre": shrunk(no_ln_pre=True),
    "small-wide-image": shrunk(image_size=(48, 64)),
}


@functools.cache
def open_clip_visual(name):
    """An untrained vision tower in float32, its layer norms and scales away from their neutral start."""
    config = {k: v for k, v in MODELS[name].items() if k in ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")}
    config["text_cfg"] = SMALL["text_cfg"]  # which nobody asks, and takes longer to make than it is worth
    torch.manual_seed(0)
    visual = open_clip.CLIP(**config).visual.eval().requires_grad_(False)
    for key, value in visual.named_parameters():
        if "ln_" in key or "bias" in key or "gamma" in key:
            value.add_(0.1 * torch.randn_like(value))
    return visual


@functools.cache
def in_double(name):
    return copy.deepcopy(open_clip_visual(name)).double()


def ours(name, dtype=torch.float32, backend=None, **options) -> GemVisionTransformer:
    config = vision_config(MODELS[name])
    options.setdefault("gem_blocks", min(6, config.layers))
    return pack_vision(open_clip_visual(name).state_dict(), config, GemOptions(**options), backend).to(dtype)


def pixels(B, H, W, seed=1):
    return torch.randn(B, 3, H, W, generator=torch.Generator().manual_seed(seed))


def error(result, truth):
    return ((result.double() - truth.double()).norm() / truth.double().norm()).item()


def check(name, image, bound=2e-6, **options):
    """Both paths of a float32 model within the bound of float64."""
    model = ours(name, **options)
    eager = {"gem_blocks": model.method.blocks, **options}
    gem, original = eager_gem(in_double(name), image.double(), **eager)
    features = model(image, original=True)
    assert error(features.patches.flatten(1, 2), gem[:, 1:]) < bound
    assert error(features.original_patches.flatten(1, 2), original[:, 1:]) < bound
    assert error(features.original_class, original[:, 0]) < bound


@pytest.mark.parametrize(
    ("name", "B", "h", "w"), [("B32", 1, 7, 7), ("B16-quickgelu", 2, 5, 9), ("L14-3-layers", 2, 5, 9)]
)
def test_float32_agrees_with_float64_on_real_shapes(name, B, h, w):
    patch = MODELS[name]["vision_cfg"]["patch_size"]
    check(name, pixels(B, patch * h, patch * w))


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("small")])
@pytest.mark.parametrize("size", [(48, 48), (48, 64), (96, 56), (8, 8)], ids=str)
def test_float32_agrees_with_float64_on_every_kind_of_tower(name, size):
    check(name, pixels(2, *size))


@pytest.mark.parametrize("iterations", [0, 1, 2, 3])
@pytest.mark.parametrize("projections", SUBSETS)
@pytest.mark.parametrize("inverse_temperature", [None, 3.5], ids=["adaptive", "fixed"])
def test_float32_agrees_with_float64_for_every_option(iterations, projections, inverse_temperature):
    options = {"iterations": iterations, "projections": projections, "inverse_temperature": inverse_temperature}
    check("small", pixels(2, 48, 64), **options)


@pytest.mark.parametrize(("iterations", "projections"), [(0, "q"), (2, "kv"), (3, "qkv")])
def test_options_hold_on_a_real_shape(iterations, projections):
    check("B32", pixels(1, 128, 224), iterations=iterations, projections=projections, inverse_temperature=4.0)


@pytest.mark.parametrize("gem_blocks", [1, 2, 4])
def test_number_of_gem_blocks(gem_blocks):
    check("small", pixels(1, 64, 48), gem_blocks=gem_blocks)


def test_clip_surgery_options():
    check("small", pixels(1, 48, 48), iterations=0, projections="v", normalize=False, inverse_temperature=64**-0.5)


@pytest.mark.parametrize("name", ["B32", "B16-quickgelu", "small-layerscale"])
def test_original_path_is_open_clips_own_output(name):
    """At the trained size, against open_clip's forward in float64, not our evaluation."""
    visual = in_double(name)
    height, width = visual.image_size
    image = pixels(2, height, width)
    visual.output_tokens = True
    pooled, tokens = visual(image.double())
    visual.output_tokens = False
    features = ours(name)(image, original=True)
    assert error(features.original_class, torch.nn.functional.normalize(pooled, dim=-1)) < 2e-6
    patches = torch.nn.functional.normalize(tokens @ visual.proj, dim=-1)
    assert error(features.original_patches.flatten(1, 2), patches) < 2e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize(
    ("name", "iterations"),
    [("B32", 1), ("small", 0), ("small", 1), ("small", 3), ("small-layerscale", 1), ("small-H14-heads", 1)],
)
def test_low_precision_error_is_at_most_twice_plain_torch(dtype, name, iterations):
    image = pixels(1, 160, 224) if name == "B32" else pixels(2, 64, 48)
    model = ours(name, dtype, iterations=iterations)
    options = {"gem_blocks": model.method.blocks, "iterations": iterations}
    gem, original = eager_gem(in_double(name), image.double(), **options)
    low = copy.deepcopy(open_clip_visual(name)).to(dtype)
    plain_gem, plain_original = eager_gem(low, image, **options)
    features = model(image, original=True)
    assert features.patches.dtype == torch.float32
    assert error(features.patches.flatten(1, 2), gem[:, 1:]) <= 2 * error(plain_gem[:, 1:], gem[:, 1:])
    assert error(features.original_class, original[:, 0]) <= 2 * error(plain_original[:, 0], original[:, 0])


def test_images_of_a_batch_do_not_mix():
    model, batch = ours("small"), pixels(3, 48, 48)
    together = model(batch).patches
    for i in range(3):
        torch.testing.assert_close(together[i], model(batch[i : i + 1]).patches[0], rtol=1e-4, atol=1e-5)


def test_nothing_is_computed_that_the_gem_output_does_not_need():
    """The last block's original attention, output projection and MLP run only when the original path is wanted."""
    model = ours("small", gem_blocks=2)
    with mock.patch.object(Block, "original", autospec=True, side_effect=Block.original) as original:
        alone = model(pixels(1, 48, 48)).patches
        assert original.call_count == 3
        both = model(pixels(1, 48, 48), original=True).patches
        assert original.call_count == 3 + 4
    torch.testing.assert_close(alone, both)


@pytest.mark.parametrize(("projections", "computed"), [("v", 1), ("qv", 2), ("qkv", 3), ("k", 2)])
def test_last_block_projects_only_what_is_attended(projections, computed):
    """Counted in the floating-point operations of the whole forward."""
    from torch.utils.flop_counter import FlopCounterMode

    def linear_flops(subset):
        # Of oneDNN's products torch knows no count.
        with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            ours("small", projections=subset, iterations=0)(pixels(1, 48, 48))
        counts = counter.get_flop_counts()["Global"]
        return sum(count for op, count in counts.items() if "mm" in str(op))

    one_projection = 2 * 37 * 128 * 128
    assert linear_flops("qkv") - linear_flops(projections) == (3 - computed) * one_projection


def test_packed_weights_lie_in_one_piece():
    """The projection too, which open_clip stores turned."""
    packed = ours("small")
    assert not open_clip_visual("small").proj.T.is_contiguous()
    assert [name for name, each in packed.named_parameters() if not each.is_contiguous()] == []


def test_attention_goes_through_the_named_backend():
    plain = next(row for row in self_self.OPERATION.backends if row.name == "reference")
    spy = mock.Mock(side_effect=plain.run)
    rows = (Backend("reference", spy), *self_self.OPERATION.backends[:-1])
    with mock.patch.object(self_self, "OPERATION", Operation("self_self_attention", rows, plain.run)):
        ours("small", gem_blocks=3, backend="reference")(pixels(1, 48, 48))
    assert spy.call_count == 3


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_no_native_attention_runs_in_either_path_on_plain_torch(backend):
    """Of 145 tokens, enough for the native kernels to be taken by themselves; nothing of theirs may be called."""
    from torch.utils._python_dispatch import TorchDispatchMode

    called = set()

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, arguments=(), options=None):
            called.add(operation.namespace)
            return operation(*arguments, **(options or {}))

    image = pixels(1, 96, 96)
    with Names():
        ours("small", backend=backend)(image, original=True)
    assert "gem_fast" not in called
    if not why_missing():
        with Names():
            ours("small")(image, original=True)
        assert "gem_fast" in called


@pytest.mark.parametrize("projections", ["q", "k", "v", "kv", "qv"])
def test_projections_left_out_do_not_change_those_that_are_not(projections):
    """The last block projects only what is wanted, unless the original path is wanted too; biases are not zero."""
    model, image = ours("small", projections=projections), pixels(2, 48, 64)
    torch.testing.assert_close(model(image).patches, model(image, original=True).patches, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("backend", "original"), [(None, False), (None, True), ("sdpa", True), pytest.param("cpu", True, marks=needs_cpu)]
)
def test_compiles_without_a_graph_break(backend, original):
    """By name too, though LayerNorm has no kernels of `cpu`."""
    model, image = ours("small-two-layers", backend=backend), pixels(2, 64, 48)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for result, expected in zip(compiled(image, original), model(image, original), strict=True):
        if expected is not None:
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 48, 48), r"\[B, 3, H, W\].*\[3, 48, 48\]"),
        (torch.zeros(1, 4, 48, 48), r"\[1, 4, 48, 48\]"),
        (torch.zeros(1, 3, 48, 48, dtype=torch.uint8), "uint8"),
        (torch.zeros(1, 3, 50, 48), "50×48.*multiples of the patch, 8"),
        (torch.zeros(1, 3, 48, 0), "48×0"),
        (torch.zeros(1, 3, 0, 48), "0×48"),
    ],
)
def test_wrong_pixels_are_named(image, message):
    with pytest.raises(ValueError, match=message):
        ours("small")(image)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("patch", "size"), [(8, (24, 16)), (3, (3, 9)), (1, (2, 2))], ids=str)
def test_patches_as_rows_of_a_product_are_those_of_the_convolution(patch, size, dtype):
    """What a GPU computes, whose convolution may be in TF32; the pixels' type is the product's."""
    layer, image = torch.nn.Conv2d(3, 10, patch, patch).double(), pixels(2, *size)
    expected = layer(image.double()).flatten(2).transpose(1, 2)
    rows = unfolded(image.double() if dtype == torch.float32 else image, patch, dtype)
    assert rows.dtype == dtype
    found = rows.double() @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_more_gem_blocks_than_blocks_are_refused():
    with pytest.raises(ValueError, match=r"gem_blocks is 5.*4 blocks"):
        ours("small", gem_blocks=5)


@pytest.mark.parametrize("change", ["missing", "foreign"])
def test_weights_that_do_not_fit_are_refused(change):
    state = dict(open_clip_visual("small").state_dict())
    if change == "missing":
        del state["transformer.resblocks.1.mlp.c_fc.bias"]
    else:
        state["transformer.resblocks.1.attn.ln_q.weight"] = torch.ones(128)
    match = "resblocks.1.mlp.c_fc.bias" if change == "missing" else "attn.ln_q.weight"
    with pytest.raises(ValueError, match=match):
        pack_vision(state, vision_config(SMALL), GemOptions(gem_blocks=2))


@pytest.mark.parametrize(
    "options",
    [
        {"gem_blocks": 0},
        {"iterations": -1},
        {"inverse_temperature": 0.0},
        {"inverse_temperature": float("nan")},
        {"projections": "qx"},
    ],
    ids=str,
)
def test_wrong_options_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options)).split("_")[-1]):
        GemOptions(**options)
