"""Features of every method against its equations in float64."""

import copy
import functools
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from gem_fast.kernels import pair_attention
from gem_fast.kernels.cpu_library import paths

import gem_fast
from gem_fast.method import Method, find_method
from gem_fast.options import GemOptions
from gem_fast.towers import vit
from gem_fast.towers.block import Block
from gem_fast.towers.packing import pack_vision
from gem_fast.towers.served import vision_config
from tests.towers import test_vit
from tests.towers.plain_methods import Plain
from tests.towers.test_vit import MODELS, error, open_clip_visual, pixels

ALL = list(gem_fast.methods())


def cut(name):
    """A model's config with 7 blocks."""
    config = MODELS[name]
    return {**config, "vision_cfg": {**config["vision_cfg"], "layers": 7}}


test_vit.MODELS.update({f"{name}-7-layers": cut(name) for name in ("B32", "B16", "small")})


def ours(name, method, dtype=torch.float32, backend=None):
    chosen = gem_fast.methods()[method] if isinstance(method, str) else method
    return pack_vision(open_clip_visual(name).state_dict(), vision_config(MODELS[name]), chosen, backend).to(dtype)


@functools.cache
def truth(name, method, B, H, W):
    visual = copy.deepcopy(open_clip_visual(name)).double()
    return Plain(visual, pixels(B, H, W).double()).features(method)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize(
    ("name", "backend", "B", "h", "w"),
    [
        ("B32-7-layers", None, 1, 7, 7),
        ("B16-7-layers", None, 2, 5, 9),
        ("small-7-layers", "sdpa", 2, 5, 9),
        ("small-7-layers", "reference", 2, 5, 9),
    ],
)
def test_float32_agrees_with_float64(name, backend, method, B, h, w):
    """On all layers, GEM and CLIP in `test_vit.py`; every method by hand: `methods_at_full_size.py`."""
    patch = MODELS[name]["vision_cfg"]["patch_size"]
    shape = (B, patch * h, patch * w)
    patches = ours(name, method, backend=backend)(pixels(*shape)).patches
    assert patches.shape[:3] == (B, h, w)
    assert error(patches.flatten(1, 2), truth(name, method, *shape)) < 2e-6


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_low_precision_error_is_at_most_twice_plain_torch(method, dtype):
    name, shape = "small-7-layers", (1, 80, 112)
    low = Plain(copy.deepcopy(open_clip_visual(name)).to(dtype), pixels(*shape)).features(method)
    patches = ours(name, method, dtype)(pixels(*shape)).patches
    exact = truth(name, method, *shape)
    assert error(patches.flatten(1, 2), exact) <= 2 * error(low, exact)


@pytest.mark.parametrize("method", ALL)
def test_the_unchanged_path_beside_is_clips(method):
    """And asking for it changes nothing of the method's own."""
    name, shape = "small-7-layers", (2, 40, 72)
    alone = ours(name, method)(pixels(*shape))
    both = ours(name, method)(pixels(*shape), original=True)
    torch.testing.assert_close(both.patches, alone.patches, rtol=1e-4, atol=2e-6)
    assert error(both.original_patches.flatten(1, 2), truth(name, "clip", *shape)) < 2e-6


# A row of what is computed: blocks of the unchanged path, MLPs beside them, and products of projections of the last.
COMPUTED = {
    "clip": (7, 0, None),
    "maskclip": (6, 1, "v"),
    "maskclip-no-mlp": (6, 0, "v"),
    "maskclip-bare": (6, 0, "v"),
    "clip-surgery": (6, 0, "v"),
    "sclip": (6, 1, "qkv"),
    "clearclip": (6, 0, "qv"),
    "naclip": (6, 0, "kv"),
    "gem": (6, 0, "qkv"),
}


@pytest.mark.parametrize("method", ALL)
def test_nothing_is_computed_that_the_output_does_not_need(method, monkeypatch):
    unchanged, mlps, last = COMPUTED[method]
    calls = {"original": 0, "after_attention": 0}
    projected = []

    def counting(name, own):
        def counted(*arguments):
            calls[name] += 1
            return own(*arguments)

        return counted

    for name in calls:
        monkeypatch.setattr(Block, name, counting(name, getattr(Block, name)))
    project = Block.project
    monkeypatch.setattr(
        Block, "project", lambda self, y, wanted="qkv": projected.append(wanted) or project(self, y, wanted)
    )
    ours("B32-7-layers", method)(pixels(1, 64, 64))
    assert calls == {"original": unchanged, "after_attention": unchanged + mlps}
    assert len(projected) == 7
    assert last is None or set(projected[-1]) == set(last)


@pytest.mark.skipif(not paths(), reason="the native kernel is not here")
@pytest.mark.parametrize("method", ["clip-surgery", "sclip", "clearclip", "naclip"])
def test_each_projection_with_itself_takes_the_symmetric_kernel(method, monkeypatch, picture):
    """On a trained model's own features: its bits are not those of the kernel for two projections."""
    seen, fast = [], pair_attention

    def watched(*given, **named):
        seen.append((given, named))
        return fast(*given, **named)

    monkeypatch.setattr(vit, "pair_attention", watched)
    gem_fast.load("gem-tiny", method=method).segment(picture(96, 144), ["cat", "dog"])
    assert len(seen) == gem_fast.methods()[method].blocks
    for (qkv, scale, pairs), named in seen:
        for own in pairs.split("+"):
            index, other = "qkv".index(own[0]), "k" if own == "qq" else "q"
            twin = qkv.clone()
            twin[:, :, "qkv".index(other)] = qkv[:, :, index]
            named["average"] = False
            halved, general = (fast(each, scale, pair, **named) for each, pair in ((qkv, own), (twin, own[0] + other)))
            torch.testing.assert_close(halved, general, rtol=1e-4, atol=1e-5)
            assert (halved != general).unflatten(2, (qkv.shape[3], -1)).any(dim=3).any(dim=1).all()


def test_changed_blocks_in_place_read_each_other():
    """Two of them without attention and MLP, against the same by hand."""
    method = Method(blocks=2)
    visual = copy.deepcopy(open_clip_visual("small")).double()
    plain = Plain(visual, pixels(1, 48, 64).double())
    x = plain.tokens()
    for block in plain.blocks[:-2]:
        x = block(x)
    for block in plain.blocks[-2:]:
        x = x + plain.out(block, plain.projections(block, x)[2])
    model = ours("small", method)
    assert error(model(pixels(1, 48, 64)).patches.flatten(1, 2), plain.finish(x)) < 2e-6
    both = model(pixels(1, 48, 64), original=True)
    assert error(both.patches.flatten(1, 2), plain.finish(x)) < 2e-6
    assert error(both.original_patches.flatten(1, 2), plain.finish(plain.unchanged())) < 2e-6


def test_several_blocks_beside_without_a_residual_are_added_up():
    """ClearCLIP's over its last blocks."""
    plain = Plain(copy.deepcopy(open_clip_visual("small")).double(), pixels(1, 48, 64).double())
    x, g = plain.tokens(), 0
    for i, block in enumerate(plain.blocks):
        if i >= 2:
            q, _, v = plain.projections(block, x)
            g = g + plain.out(block, plain.weights(q, q) @ v)
        x = block(x)
    method = replace(gem_fast.methods()["clearclip"], blocks=2)
    assert error(ours("small", method)(pixels(1, 48, 64)).patches.flatten(1, 2), plain.finish(g)) < 2e-6


def test_methods_that_refine_can_be_summed():
    mean = gem_fast.methods()["gem"]
    mean, total = (replace(mean, blocks=1, residual=False, average=average) for average in (True, False))
    features = [ours("small", each)(pixels(1, 48, 64)).patches for each in (mean, total)]
    assert (features[0] - features[1]).abs().max() > 1e-3  # out's bias is added once, and not three times


@pytest.mark.parametrize("method", ALL)
def test_load_takes_it_by_name_and_says_so(method):
    model = gem_fast.load("gem-tiny", method=method)
    assert model.identity()["method"]["name"] == method
    assert model.defaults == gem_fast.load("gem-tiny").defaults


def test_gems_options_change_gem_alone():
    model = gem_fast.load("gem-tiny", gem_blocks=3, projections="qv")
    assert (model.vision.method.blocks, model.vision.method.attention) == (3, "qq+vv")
    assert model.vision.method.scale == 8.0  # the model's own
    with pytest.raises(gem_fast.ModelError, match=r"iterations can change gem alone, and the method is sclip"):
        gem_fast.load("gem-tiny", method="sclip", iterations=2)
    own = Method("mine", attention="qk", mlp=True)
    assert gem_fast.load("gem-tiny", method=own).vision.method is own


def test_clips_attention_as_an_own_method_is_clip():
    """`"qk"` with residual and MLP is the block as it was."""
    own, clip = (ours("small", each)(pixels(2, 48, 64)).patches for each in (Method(attention="qk", mlp=True), "clip"))
    torch.testing.assert_close(own, clip, rtol=1e-4, atol=2e-6)


def test_unknown_methods_are_told_the_known():
    with pytest.raises(gem_fast.ModelError, match="no method is called 'sclop'; the methods are clip, maskclip"):
        gem_fast.load("gem-tiny", method="sclop")
    with pytest.raises(ValueError, match="no method is called"):
        find_method("", GemOptions(), {})


def test_more_blocks_than_the_model_has_are_refused():
    with pytest.raises(
        gem_fast.ModelError, match=r"blocks of the method clip-surgery is 6, but the model has 4 blocks"
    ):
        ours("small", "clip-surgery")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": ""}, "name"),
        ({"blocks": -1}, "blocks must be 0 or more"),
        ({"blocks": True}, "blocks must be 0 or more, a whole number, got True"),
        ({"distance": "near"}, "distance must be positive in float32.*, got 'near'"),
        ({"attention": "q"}, "pairs of q, k and v joined by"),
        ({"attention": "qq+qq"}, "each once"),
        ({"attention": "qx"}, "such as qq"),
        ({"iterations": -1}, "iterations must be 0 or more"),
        ({"scale": "cosine"}, "'head' or 'adaptive', got 'cosine'"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": float("nan")}, "scale must be positive"),
        ({"scale": 1e39}, "scale must be positive in float32, got 1e"),
        ({"distance": 0.0}, "distance must be positive"),
        ({"distance": float("inf")}, "distance must be positive in float32, with its square, or None, got inf"),
        ({"distance": 1e-30}, "distance must be positive in float32, with its square, or None, got 1e-30"),
        ({"attention": "kk", "distance": 5.0, "normalize": True}, "leave out iterations and normalize"),
        ({"attention": "qk", "iterations": 1}, "pairs of one projection, got 'qk'"),
    ],
    ids=str,
)
def test_wrong_fields_are_named(fields, reason):
    with pytest.raises(ValueError, match=reason):
        Method(**fields)


def test_numbers_of_any_library_are_kept_as_pythons_own():
    """So that a manifest and a run's record, which are JSON, hold them."""
    given = {"blocks": np.int64(2), "scale": np.float32(0.5), "distance": torch.tensor(2.0)}
    fields = asdict(Method(attention="qq", **given))
    assert {name: type(fields[name]) for name in given} == {"blocks": int, "scale": float, "distance": float}
    options = GemOptions(gem_blocks=np.int64(2), inverse_temperature=np.float32(0.5))
    assert json.loads(json.dumps(asdict(options))) == asdict(GemOptions(gem_blocks=2, inverse_temperature=0.5))
