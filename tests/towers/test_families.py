"""Models of other families: the same embeddings as their own libraries', and every method's equations on them."""

import copy
import functools
import itertools
from collections import Counter

import open_clip
import pytest
import torch
from gem_fast.kernels.backends import Operation
from gem_fast.kernels.cpu_library import why_missing, why_no_vnni
from safetensors.torch import save_file

import gem_fast
from gem_fast import ModelError
from gem_fast.options import GemOptions
from gem_fast.towers.packing import pack_vision
from gem_fast.towers.rotary import rotation_of
from gem_fast.towers.served import vision_config, why_unsupported
from gem_fast.towers.text import embed_tokens
from tests.towers import families
from tests.towers.families import CONFIGS, WORDS, make_model, word_tokenizer, write_folder
from tests.towers.plain_families import PlainCoca, PlainTrunk
from tests.towers.plain_methods import Plain

TRUNKS = [name for name, config in CONFIGS.items() if "timm_model_name" in config["vision_cfg"]]
POOLED = ["siglip", "siglip-wide", "pe", "pe-bare"]
ROTARY = ["pe", "pe-bare", "eva02"]
SHAPES = {"trained": (2, 48, 48), "wide": (2, 40, 72), "small": (1, 16, 8)}


@functools.cache
def truth(name):
    return make_model(CONFIGS[name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")

    @functools.cache
    def write(name):
        tokenizer = word_tokenizer() if CONFIGS[name]["text_cfg"].get("hf_tokenizer_name") else None
        return str(write_folder(root / name, truth(name), CONFIGS[name], tokenizer))

    return write


def pixels(shape):
    B, H, W = shape
    return torch.randn(B, 3, H, W, generator=torch.Generator().manual_seed(B * H + W))


def tokens(name):
    """Texts of several lengths; the end is 2 where the tower looks for it, else the highest id."""
    ids = torch.randint(3, WORDS - 1, (4, 12), generator=torch.Generator().manual_seed(0))
    for row, length in enumerate((2, 5, 11, 12)):
        ids[row, length - 1], ids[row, length:] = 2 if name == "metaclip2" else WORDS - 1, 0
    return ids


def error(found, exact):
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("name", CONFIGS)
def test_embeddings_are_those_of_open_clip(folder, name):
    model, clip = gem_fast.load(folder(name)), truth(name)
    images = model.features(pixels(SHAPES["trained"]), original=True).original_class
    assert error(images, clip.encode_image(pixels(SHAPES["trained"]), normalize=True)) < 1e-5
    for ids in (tokens(name), tokens(name)[:2]):  # one that fills the context is among them, and not
        assert error(embed_tokens(model.text.tower, ids), clip.encode_text(ids, normalize=True)) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", CONFIGS)
def test_bits_are_those_of_the_image_alone_by_any_threads(folder, threads, name, dtype):
    if missing := why_no_vnni() if dtype == "int8" else why_missing():
        pytest.skip(missing)
    model = gem_fast.load(folder(name), dtype=dtype)

    def features(images):
        found = model.features(images, original=True)
        return found.patches, found.original_patches, found.original_class

    for h, w in ((1, 1), (2, 3), (9, 8)):
        side = model.vision.config.patch_size
        images = pixels((3, h * side, w * side))
        threads(1)
        alone = [torch.cat(parts) for parts in zip(*(features(image[None]) for image in images), strict=True)]
        for count, batch in ((2, 1), (1, 3), (2, 3)):
            threads(count)
            found = zip(*map(features, images.split(batch)), strict=True)
            for own, parts in zip(alone, found, strict=True):
                assert torch.equal(own, torch.cat(parts)), f"{h}×{w}, {count} threads, batches of {batch}"


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_norm_has_its_family_s_eps(folder, name):
    """Which features of weights like these don't show."""

    def counted(tower):
        return Counter(each.eps for each in tower.modules() if isinstance(each, torch.nn.LayerNorm))

    clip = truth(name)
    theirs = counted(clip.visual) - Counter([clip.visual.attn_pool.ln_q.eps] if name == "coca" else [])
    assert counted(gem_fast.load(folder(name)).vision) == theirs


def test_rotations_are_as_exact_for_half_types(folder):
    config = gem_fast.load(folder("eva02")).vision.config
    angles = rotation_of(config, 30, 40, torch.zeros(1, dtype=torch.bfloat16))
    assert angles.dtype == torch.float32
    assert error(angles, rotation_of(config, 30, 40, torch.zeros(1, dtype=torch.float64))) < 1e-5


def plain(name, shape, **options):
    clip = copy.deepcopy(truth(name)).double()
    if name in TRUNKS:
        return PlainTrunk(clip.visual.trunk, pixels(shape).double(), **options)
    return (PlainCoca if name == "coca" else Plain)(clip.visual, pixels(shape).double())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gem_agrees_with_its_equations_in_float64(folder, name, shape):
    patches = gem_fast.load(folder(name)).features(pixels(shape))
    assert patches.shape[1:3] == (shape[1] // 8, shape[2] // 8)
    assert error(patches.flatten(1, 2), plain(name, shape).features("gem")) < 5e-6


METHODS = [name for name in gem_fast.methods() if name != "gem"]


@pytest.mark.parametrize(
    ("name", "method", "backend"),
    [
        *((name, method, None) for name in CONFIGS for method in METHODS),
        *zip(itertools.cycle(("siglip-wide", "pe", "eva02")), METHODS, itertools.repeat("reference")),
    ],
)
def test_every_method_agrees_with_its_equations(folder, name, method, backend):
    shape = SHAPES["wide"]
    patches = gem_fast.load(folder(name), method=method, backend=backend).features(pixels(shape))
    assert error(patches.flatten(1, 2), plain(name, shape).features(method)) < 5e-6


@pytest.mark.parametrize("method", ["gem", "sclip"])
@pytest.mark.parametrize("name", ["pe", "eva02"])
def test_every_operation_is_by_the_backend_that_was_asked_for(folder, monkeypatch, name, method):
    asked, whole = [], Operation.__call__

    def call(self, backend, *arguments):
        asked.append(backend)
        return whole(self, backend, *arguments)

    model = gem_fast.load(folder(name), method=method, backend="sdpa")
    monkeypatch.setattr(Operation, "__call__", call)
    model.vision(pixels(SHAPES["small"]), original=True)
    assert len(asked) > 20
    assert set(asked) == {"sdpa"}


@pytest.mark.parametrize("name", POOLED)
def test_pooling_by_value(folder, name):
    patches = gem_fast.load(folder(name), pooling="value").features(pixels(SHAPES["wide"]))
    exact = plain(name, SHAPES["wide"], pooling="value").features("gem")
    assert error(patches.flatten(1, 2), exact) < 5e-6
    assert error(patches.flatten(1, 2), plain(name, SHAPES["wide"]).features("gem")) > 0.01


@pytest.mark.parametrize("name", ROTARY)
def test_rotated_projections(folder, name):
    patches = gem_fast.load(folder(name), rotated=True).features(pixels(SHAPES["wide"]))
    assert error(patches.flatten(1, 2), plain(name, SHAPES["wide"], rotated=True).features("gem")) < 5e-6
    assert error(patches.flatten(1, 2), plain(name, SHAPES["wide"]).features("gem")) > 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["siglip-wide", "eva02", "pe"])
def test_low_precision_is_near(folder, name, dtype):
    exact = plain(name, SHAPES["wide"]).features("gem")
    low = gem_fast.load(folder(name), dtype=dtype).features(pixels(SHAPES["wide"])).flatten(1, 2)
    assert error(low, exact) < (0.05 if dtype == "bfloat16" else 0.006)


def test_choices_that_a_family_does_not_have_are_refused(folder):
    for arguments, reason in (
        ({"pooling": "value"}, "is for heads that attend, with an MLP behind"),
        ({"rotated": True}, "is for towers with rotary positions"),
        ({"sigmoid": True}, "trained with one, as SigLIP"),
        ({"pooling": "mean"}, "pooling must be one of head, value"),
    ):
        for name in ("clipa", "coca"):
            with pytest.raises(ModelError, match=reason):
                gem_fast.load(folder(name), **arguments)


def test_cocas_head_has_no_mean_of_all_queries():
    vision = CONFIGS["coca"]["vision_cfg"] | {"pool_type": "avg"}
    assert "the mean of what all queries" in why_unsupported(CONFIGS["coca"] | {"vision_cfg": vision})


def test_one_tower_where_coca_packs_q_k_and_v():
    """Where the tokens are as wide as the embedding, torch keeps them in one matrix."""
    config = CONFIGS["coca"] | {"embed_dim": 64, "multimodal_cfg": CONFIGS["coca"]["multimodal_cfg"] | {"width": 64}}
    config |= {"vision_cfg": config["vision_cfg"] | {"attn_pooler_heads": 4}}
    clip = make_model(config)
    vision = pack_vision(dict(clip.visual.state_dict()), vision_config(config), gem_fast.methods()["gem"])
    found = vision(pixels(SHAPES["trained"]), original=True).original_class
    assert error(found, clip.encode_image(pixels(SHAPES["trained"]), normalize=True)) < 1e-5


class TestSigmoid:
    def test_confidence_is_the_sigmoid_of_the_best_class(self, folder, picture):
        model = gem_fast.load(folder("siglip"), sigmoid=True)
        usual = gem_fast.load(folder("siglip"))
        photo, words = picture(60, 90), ["cat", "dog", "red car"]
        result, other = (each.segment(photo, words, threshold=0.0, size=48) for each in (model, usual))
        upsampled = torch.nn.functional.interpolate(torch.tensor(result.scores)[None], (60, 90), mode="bilinear")[0]
        scale, bias = truth("siglip").logit_scale.exp(), truth("siglip").logit_bias
        best, index = upsampled.max(0)
        torch.testing.assert_close(
            torch.tensor(result.confidence), torch.sigmoid(scale * best + bias), rtol=1e-4, atol=1e-6
        )
        assert (torch.tensor(result.labels).long() == index + 1).float().mean() > 0.999
        assert (result.labels == other.labels).mean() > 0.999
        assert result.confidence.max() < other.confidence.max()

    def test_it_is_told_apart_when_a_run_goes_on(self, folder):
        plain, sigmoid = (gem_fast.load(folder("siglip"), sigmoid=each).identity() for each in (False, True))
        assert plain != sigmoid
        assert plain["method"] != gem_fast.load(folder("siglip"), pooling="value").identity()["method"]

    def test_scale_is_the_models_own(self, folder):
        assert gem_fast.load(folder("siglip")).defaults.logit_scale == pytest.approx(
            float(truth("siglip").logit_scale.exp())
        )


def test_weights_of_another_model_are_refused(folder, tmp_path):
    weights = families.write_folder(tmp_path / "other", truth("pe"), CONFIGS["pe"]) / "open_clip_model.safetensors"
    with pytest.raises(ModelError, match=r"does not fit the model.*Missing keys"):
        gem_fast.load(folder("siglip"), weights=weights)
    with pytest.raises(ModelError, match="name the model, such as ViT-B-16-SigLIP"):
        gem_fast.load("ViT-B-16", weights=weights)


@pytest.mark.parametrize(
    ("name", "head_width"),
    [
        ("ViT-B-16-SigLIP", 64),
        ("ViT-SO400M-14-SigLIP", 72),
        ("ViT-gopt-16-SigLIP2-256", 96),
        ("PE-Core-T-16-384", 64),
        ("EVA02-B-16", 64),
        ("EVA01-g-14", 88),
        ("MobileCLIP2-L-14", 64),
        ("coca_ViT-L-14", 64),
        ("coca_base", 64),
    ],
)
def test_towers_that_are_listed_without_being_built_are_read_when_loaded(name, head_width):
    config = open_clip.get_model_config(name)
    assert why_unsupported(config) is None
    shape = vision_config(config)
    assert shape.width // shape.heads == head_width


@pytest.mark.parametrize("names", [("ls1.gamma", "ls2.gamma"), ("gamma_1", "gamma_2")])
def test_layer_scales_of_timm_are_multiplied_into_weights_and_biases(names):
    clip = truth("siglip")
    config, plain = vision_config(CONFIGS["siglip"]), dict(clip.visual.state_dict())
    scaled = dict(plain)
    for name, layer in zip(names, ("attn.proj", "mlp.fc2"), strict=True):
        block = "trunk.blocks.3"
        gamma = torch.rand(config.width, generator=torch.Generator().manual_seed(0))
        scaled[f"{block}.{name}"] = gamma
        plain[f"{block}.{layer}.weight"] = plain[f"{block}.{layer}.weight"] * gamma[:, None]
        plain[f"{block}.{layer}.bias"] = plain[f"{block}.{layer}.bias"] * gamma
    found, expected = (pack_vision(state, config, GemOptions()).state_dict() for state in (scaled, plain))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("name", "kept"), [("siglip", False), ("pe", False), ("eva02", False), ("coca", True), ("clipa", True)]
)
def test_positions_of_another_size(tmp_path, name, kept):
    model = make_model(CONFIGS[name])
    folder = write_folder(tmp_path, model, CONFIGS[name], word_tokenizer())
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    key = "visual.positional_embedding" if kept else "visual.trunk.pos_embed"
    places = state[key]
    rows = 25 + places.shape[-2] % 2  # of 5 × 5 patches, and of a class token where the places are odd
    state[key] = torch.randn(*places.shape[:-2], rows, places.shape[-1])
    save_file(state, folder / "open_clip_model.safetensors")
    if kept:
        assert gem_fast.load(str(folder)).vision.config.grid == (5, 5)
        return
    with pytest.raises(ModelError, match=r"Other shapes: visual\.trunk\.pos_embed"):
        gem_fast.load(str(folder))
