"""Folders as transformers writes them, loaded by their path: the embeddings of its own models, and its tokenizers."""

import copy
import functools
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import gem_fast
from gem_fast import ModelError
from gem_fast.towers import blip_config, hf_text, hugging_face, siglip_config
from gem_fast.towers.text import embed_tokens
from tests.export.test_image_encoder import open_encoder
from tests.towers.families import scatter, word_tokenizer
from tests.towers.plain_families import PlainSiglip, cut

transformers = pytest.importorskip("transformers", reason="the truth is transformers' own models")

VISION = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 7,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 12,
}
WIDE = VISION | {"hidden_size": 144, "intermediate_size": 200}  # heads of 72
MODELS = {
    "siglip": ("Siglip", VISION, TEXT | {"projection_size": 64}),
    "siglip-wide": ("Siglip", WIDE | {"hidden_act": "gelu"}, TEXT | {"projection_size": 144}),
    "siglip2": ("Siglip2", VISION | {"num_patches": 36}, TEXT | {"projection_size": 64}),
    "metaclip_2": ("MetaClip2", VISION, TEXT | {"eos_token_id": 2}),
    "clip": ("CLIP", VISION, TEXT | {"vocab_size": 49408, "max_position_embeddings": 77}),
}
LETTERS = "▁abcdefghijklmnopqrstuvwxyz,.!"


def gemma():
    """transformers' tokenizer of SigLIP 2, of letters and a few merges."""
    merges = [("c", "a"), ("ca", "t"), ("r", "e"), ("re", "d"), ("▁", "ca"), ("▁", "re")]
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *LETTERS, *("".join(pair) for pair in merges)]
    vocabulary = {word: index for index, word in enumerate(words)}
    return transformers.Siglip2Tokenizer(vocabulary, merges, padding_side="right")


def xlm():
    """transformers' tokenizer of MetaCLIP 2, of letters and a few words."""
    words = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS, "▁cat", "▁photo", "▁of", "<mask>"]
    return transformers.XLMRobertaTokenizer([(word, -float(index)) for index, word in enumerate(words)])


TOKENIZERS = {"siglip2": gemma, "metaclip_2": xlm}
SIGLIPS = ["siglip", "siglip-wide", "siglip2"]
SHAPES = {"trained": (2, 48, 48), "wide": (2, 40, 72), "small": (1, 16, 8)}


@functools.cache
def truth(name):
    kind, vision, text = MODELS[name]
    torch.manual_seed(4)
    config = getattr(transformers, f"{kind}Config")(vision_config=vision, text_config=text)
    return scatter(getattr(transformers, f"{kind}Model")(config).eval())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("transformers")

    @functools.cache
    def write(name):
        truth(name).save_pretrained(root / name)
        if name in TOKENIZERS:
            TOKENIZERS[name]().save_pretrained(root / name)
        elif name != "clip":
            word_tokenizer().save(str(root / name / "tokenizer.json"))
            (root / name / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "SiglipTokenizer"}))
        return root / name

    return write


def pixels(shape):
    B, H, W = shape
    return torch.randn(B, 3, H, W, generator=torch.Generator().manual_seed(B * H + W))


def tokens(name):
    """Texts of several lengths, with the end that each tower looks for."""
    end = {"metaclip_2": 2, "clip": 49407}.get(name, 63)
    ids = torch.randint(3, 60, (4, 12), generator=torch.Generator().manual_seed(0))
    for row, length in enumerate((2, 5, 11, 12)):
        ids[row, length - 1], ids[row, length:] = end, 0
    return ids


def theirs(name, images, ids):
    """transformers' own unit embeddings."""
    model = truth(name)
    seen = {"pixel_values": images}
    if name == "siglip2":
        grid = torch.tensor([[side // 8 for side in images.shape[2:]]] * len(images))
        seen = {"pixel_values": cut(images, 8), "spatial_shapes": grid}
        seen["pixel_attention_mask"] = torch.ones(seen["pixel_values"].shape[:2])
    with torch.inference_mode():
        found = model(input_ids=ids, **seen)
    return found.image_embeds, found.text_embeds


def error(found, exact):
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_are_those_of_transformers(folder, name):
    model = gem_fast.load(str(folder(name)))
    images, texts = theirs(name, pixels(SHAPES["trained"]), tokens(name))
    assert error(model.features(pixels(SHAPES["trained"]), original=True).original_class, images) < 1e-5
    assert error(embed_tokens(model.text.tower, tokens(name)), texts) < 1e-5


@pytest.mark.parametrize("shape", ["wide", "small"])
def test_naflex_takes_other_shapes_as_transformers_does(folder, shape):
    if shape == "small" and tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 23):
        pytest.skip("of one column these transformers take what torch resamples wrongly")
    images, _ = theirs("siglip2", pixels(SHAPES[shape]), tokens("siglip2"))
    model = gem_fast.load(str(folder("siglip2")))
    assert error(model.features(pixels(SHAPES[shape]), original=True).original_class, images) < 1e-5


@pytest.mark.parametrize("name", SIGLIPS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gem_agrees_with_its_equations_in_float64(folder, name, shape):
    exact = PlainSiglip(copy.deepcopy(truth(name)).double(), pixels(shape)).features("gem")
    assert error(gem_fast.load(str(folder(name))).features(pixels(shape)).flatten(1, 2), exact) < 5e-6


@pytest.mark.parametrize("name", ["siglip", "siglip2"])
@pytest.mark.parametrize("shape", ["wide", "small"])
def test_a_graph_for_all_sizes_resamples_as_the_engine_does(folder, name, shape):
    model = gem_fast.load(str(folder(name)))
    found = torch.tensor(open_encoder(model, None)(pixels(SHAPES[shape]))["patch_features"])
    assert error(found, model.features(pixels(SHAPES[shape])).double()) < 1e-5


def test_scale_and_bias_are_the_models_own(folder):
    model = gem_fast.load(str(folder("siglip")), sigmoid=True)
    assert model.defaults.logit_scale == pytest.approx(float(truth("siglip").logit_scale.exp()))
    assert model.logit_bias == pytest.approx(float(truth("siglip").logit_bias))


@pytest.mark.parametrize(
    ("name", "images", "kind", "mean"),
    [
        ("siglip", {}, "bicubic", 0.5),
        ("siglip2", {"patch_size": 8, "max_num_patches": 36}, "bilinear", 0.5),
        ("siglip2", {"image_mean": [0.4] * 3, "image_std": [0.3] * 3, "resample": 3}, "bicubic", 0.4),
    ],
)
def test_preprocessing(folder, tmp_path, name, images, kind, mean):
    for file in folder(name).iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images))
    model = gem_fast.load(str(tmp_path))
    assert (model.interpolation, model.mean, model.defaults.size) == (kind, (mean,) * 3, 48)


TEXTS = ["a photo of the cat.", "Red CAR!! in the bus, tree", "", "a " * 40, "unknown cafés"]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_are_those_of_transformers_tokenizers(folder, name):
    own = type(TOKENIZERS[name]()).from_pretrained(str(folder(name)))
    settings = {"padding": "max_length", "truncation": True, "max_length": 12, "return_tensors": "pt"}
    assert torch.equal(gem_fast.load(str(folder(name))).text.tokenizer(TEXTS), own(TEXTS, **settings).input_ids)


def test_the_first_siglip_reads_texts_without_punctuation(folder):
    own = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder("siglip")), pad_token="<pad>")
    settings = {"padding": "max_length", "truncation": True, "max_length": 12, "return_tensors": "pt"}
    plain = ["a photo of the cat", "red car in the bus tree", "", "a " * 40, "unknown cafés"]
    assert torch.equal(gem_fast.load(str(folder("siglip"))).text.tokenizer(TEXTS), own(plain, **settings).input_ids)


@pytest.mark.parametrize("name", ["siglip", "siglip2", "metaclip_2"])
def test_random_weights_need_no_file(folder, tmp_path, name):
    for file in folder(name).glob("*.json"):
        (tmp_path / file.name).symlink_to(file)
    features = gem_fast.load(str(tmp_path), "random").features(pixels(SHAPES["wide"]))
    assert torch.isfinite(features).all()
    with pytest.raises(ModelError, match="no file of weights of a usual name"):
        gem_fast.load(str(tmp_path))


class TestRefusals:
    @pytest.fixture
    def copied(self, folder, tmp_path):
        for file in folder("siglip").iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        return tmp_path

    @pytest.mark.parametrize(
        ("tower", "changed", "reason"),
        [
            ("vision_config", {"hidden_size": "big"}, "sizes that can't be used"),
            ("vision_config", {"num_hidden_layers": 1 << 20}, "sizes that can't be used"),
            ("text_config", {"num_hidden_layers": 1 << 20}, "sizes that can't be used"),
            ("text_config", {"num_attention_heads": 5}, "heads or a layer_norm_eps that don't fit"),
            ("vision_config", {"layer_norm_eps": "small"}, "heads or a layer_norm_eps that don't fit"),
            ("vision_config", {"hidden_act": "relu"}, "its activation is 'relu', not one of gelu"),
            ("vision_config", {"num_channels": 4}, "its images have 4 channels"),
            ("vision_config", {"num_hidden_layers": 8}, r"Missing keys: .*resblocks\.7"),
            ("vision_config", {"image_size": 64}, r"Other shapes: .*positional_embedding"),
            ("text_config", {"vocab_size": 40}, r"Other shapes: token_embedding"),
        ],
    )
    def test_configs_that_cannot_be_used(self, copied, tower, changed, reason):
        config = json.loads((copied / "config.json").read_text())
        config[tower] |= changed
        (copied / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=reason):
            gem_fast.load(str(copied))

    @pytest.mark.parametrize(
        "lost", ["vision_model.head.probe", "text_model.head.weight", "vision_model.head.mlp.fc1.bias"]
    )
    def test_weights_that_lack_some(self, copied, lost):
        state = load_file(copied / "model.safetensors")
        state.pop(lost)
        save_file(state, copied / "model.safetensors")
        with pytest.raises(ModelError, match=r"model\.safetensors"):
            gem_fast.load(str(copied))

    def test_another_kind_of_model(self, copied):
        (copied / "config.json").write_text('{"model_type": "align"}')
        with pytest.raises(
            ModelError, match="is of a 'align' model; clip, metaclip_2, siglip, siglip2 and blip are known"
        ):
            gem_fast.load(str(copied))

    def test_a_missing_tokenizer_is_told_with_where_it_comes_from(self, copied, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        (copied / "tokenizer.json").unlink()
        with pytest.raises(
            ModelError, match=r"needs a tokenizer, that of timm/ViT-B-16-SigLIP on the Hugging Face hub"
        ):
            gem_fast.load(str(copied))

    def test_its_weights_under_another_name_are_told(self, copied):
        with pytest.raises(ModelError, match="SigLIP in Hugging Face's names: load its folder"):
            gem_fast.load("ViT-B-16", weights=copied / "model.safetensors")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (siglip_config._VISION, "SiglipVisionConfig"),
        (siglip_config._TEXT, "SiglipTextConfig"),
        (siglip_config._VISION, "Siglip2VisionConfig"),
        (siglip_config._TEXT, "Siglip2TextConfig"),
        (hugging_face._VISION, "CLIPVisionConfig"),
        (hugging_face._TEXT, "CLIPTextConfig"),
        (hugging_face._VISION, "MetaClip2VisionConfig"),
        (hugging_face._TEXT, "MetaClip2TextConfig"),
        (blip_config._VISION, "BlipVisionConfig"),
        (blip_config._TEXT, "BlipTextConfig"),
        (hf_text._DEFAULTS, "BertConfig"),
        (hf_text._DEFAULTS | hf_text._ROBERTA, "RobertaConfig"),
    ],
)
def test_what_configurations_leave_out_is_as_transformers_has_it(ours, theirs):
    made = getattr(transformers, theirs)()
    told = {name: getattr(made, name) for name in ours if hasattr(made, name)}
    assert told == {name: ours[name] for name in told}
    assert len(ours) - len(told) <= 1  # each of both SigLIPs says its grid in another way


def test_texts_of_siglip_2_keep_their_punctuation_by_the_name_of_their_tokenizer():
    for kind, clean in (
        ("GemmaTokenizerFast", "lower"),
        ("Siglip2Tokenizer", "lower"),
        ("T5Tokenizer", "canonicalize"),
    ):
        text = siglip_config.siglip_config({"model_type": "siglip"}, {"tokenizer_class": kind}, "x")["text_cfg"]
        assert text["tokenizer_kwargs"] == {"clean": clean}
