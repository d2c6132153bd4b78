"""CLIPs whose text towers are Hugging Face's models, against open_clip's wrapper of transformers' own."""

import json
import resource
from concurrent.futures import ThreadPoolExecutor

import open_clip
import pytest
import torch
from torch import nn

import gem_fast
from gem_fast import ModelError
from gem_fast.towers.bert import BertText
from gem_fast.towers.hf_text import _weights_without_memory, hf_text
from gem_fast.towers.model_tokenizer import tokenizer_of
from gem_fast.towers.text import embed_tokens
from tests.towers.families import scatter, word_tokenizer, write_folder

VISION = {"image_size": 16, "layers": 7, "width": 32, "head_width": 16, "patch_size": 8}
_BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
    "max_position_embeddings": 40,
}
MODELS = {
    "roberta": ("RobertaConfig", _BERT | {"pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}, "mlp"),
    "xlm-roberta": ("XLMRobertaConfig", _BERT | {"pad_token_id": 1, "type_vocab_size": 1}, "linear"),
    "bert": ("BertConfig", _BERT, None),
    "mt5": (
        "MT5Config",
        {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "vocab_size": 64, "pad_token_id": 0},
        "mlp",
    ),
    "m2m_100": (
        "M2M100Config",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_layers": 1,
            "decoder_attention_heads": 2,
            "decoder_ffn_dim": 48,
            "vocab_size": 64,
            "max_position_embeddings": 40,
        },
        "linear",
    ),
}


@pytest.fixture(params=MODELS)
def made(request, tmp_path):
    """A folder as open_clip writes it, its model, and the kind of its text tower."""
    transformers = pytest.importorskip("transformers", reason="the truth is transformers' own model")
    kind, settings, projection = MODELS[request.param]
    words = tmp_path / "words"
    getattr(transformers, kind)(**settings).save_pretrained(words)
    pooler = "cls_pooler" if request.param == "m2m_100" else "mean_pooler"
    text = {
        "hf_model_name": str(words),
        "hf_tokenizer_name": str(words),
        "hf_model_pretrained": False,
        "hf_proj_type": projection,
        "hf_pooler_type": pooler,
        "context_length": 12,
    }
    config = {"embed_dim": 32 if projection is None else 24, "vision_cfg": VISION, "text_cfg": text}
    torch.manual_seed(2)
    model = scatter(open_clip.CustomTextCLIP(**json.loads(json.dumps(config))).eval())
    folder = write_folder(tmp_path / "clip", model, named(config))
    word_tokenizer().save(str(words / "tokenizer.json"))
    words.rename(folder / "words")
    return folder, model, request.param


def named(config):
    """The config with the text model under a name that is looked for beside the weights."""
    return config | {"text_cfg": config["text_cfg"] | {"hf_model_name": "words", "hf_tokenizer_name": "words"}}


def test_embeddings_are_those_of_open_clip(made):
    folder, clip, kind = made
    model, padding = gem_fast.load(str(folder)), clip.text.config.pad_token_id
    ids = torch.randint(3, 64, (4, 12), generator=torch.Generator().manual_seed(0))
    for row, length in enumerate((2, 5, 11, 12)):
        ids[row, length:] = padding
    truth = clip.encode_text(ids, normalize=True)
    assert (embed_tokens(model.text.tower, ids) - truth).norm() / truth.norm() < 1e-5
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    images, own = clip.encode_image(pixels, normalize=True), model.features(pixels, original=True).original_class
    assert (own - images).norm() / images.norm() < 1e-5
    assert isinstance(model.text.tower, BertText) is (kind in ("roberta", "xlm-roberta", "bert"))


def test_what_is_missing_is_named(made, tmp_path, monkeypatch):
    folder, _, _ = made
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_model_name": "someone/words"}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"config.json of someone/words could not be fetched.* as tokenizer would do"):
        gem_fast.load(str(folder))
    (folder / "words").rename(tmp_path / "elsewhere")
    assert gem_fast.load(str(folder), tokenizer=tmp_path / "elsewhere").encode_text(["a cat"]).shape[0] == 1


@pytest.mark.parametrize("name", ["../words", "{root}/words", "link"])
def test_names_of_other_folders_are_not_followed(tmp_path, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "words").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link").symlink_to(tmp_path / "words")
    word_tokenizer().save(str(tmp_path / "words" / "tokenizer.json"))
    config = {"text_cfg": {"hf_tokenizer_name": name.format(root=tmp_path)}}
    with pytest.raises(ModelError, match="needs a tokenizer"):
        tokenizer_of("ViT-X", config, None, (tmp_path / "model",))


def test_known_ones_need_no_configuration(monkeypatch, tmp_path):
    """RoBERTa under open_clip's own name, with a tokenizer alone and random weights."""
    monkeypatch.setattr("gem_fast.towers.hf_text._KNOWN", {"roberta-base": ("roberta", 32, 1, 2, 64)})
    word_tokenizer(end="</s>", padding="<pad>").save(str(tmp_path / "tokenizer.json"))
    model = gem_fast.load("roberta-ViT-B-32", "random", tokenizer=tmp_path)
    assert model.encode_text(["a cat", "dog"]).shape == (2, 512)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "gpt2"}, "its text tower is a 'gpt2'|could not be fetched"),
        ({"hidden_size": "big"}, "sizes or an activation"),
        ({"hidden_act": "selu"}, "sizes or an activation"),
        ({"num_hidden_layers": 10**9}, "sizes or an activation"),
        ({"num_attention_heads": 5}, "sizes or an activation"),
        ({"pad_token_id": -4}, "sizes or an activation"),
        ({"layer_norm_eps": "x"}, "sizes or an activation"),
        ({"pad_token_id": 39}, "sizes or an activation"),
        ({"is_decoder": True}, "its text tower is a decoder"),
        ({"auto_map": {"AutoModel": "evil.Evil"}, "vocab_size": 63}, "Other shapes"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path, monkeypatch, change, reason):
    transformers = pytest.importorskip("transformers", reason="the truth is transformers' own model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    words, settings = tmp_path / "words", MODELS["roberta"][1]
    transformers.RobertaConfig(**settings).save_pretrained(words)
    text = {"hf_model_name": str(words), "hf_tokenizer_name": str(words), "hf_model_pretrained": False}
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text}
    model = scatter(open_clip.CustomTextCLIP(**json.loads(json.dumps(config))).eval())
    folder = write_folder(tmp_path / "clip", model, config, word_tokenizer())
    told = json.loads((words / "config.json").read_text()) | change
    (words / "config.json").write_text(json.dumps(told))
    word_tokenizer().save(str(words / "tokenizer.json"))
    with pytest.raises(ModelError, match=reason):
        gem_fast.load(str(folder), tokenizer=words)


@pytest.mark.parametrize(
    ("model", "pooler", "told"),
    [
        ("words", "max_pooler", "has hf_pooler_type='max_pooler'"),
        ("words", ["mean_pooler"], "has hf_pooler_type=.*mean_pooler"),
        ("roberta-base", "cls_pooler", "roberta-base with hf_pooler_type='cls_pooler', is made of a config.json"),
    ],
)
def test_poolers_that_are_none_or_need_a_configuration(tmp_path, model, pooler, told):
    if model == "words":
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    with pytest.raises(ModelError, match=f"^a model: its text tower.*{told}"):
        hf_text("a model", {"text_cfg": {"hf_model_name": model, "hf_pooler_type": pooler}}, (tmp_path,))


def test_what_a_configuration_implies(tmp_path):
    """As open_clip and transformers count: positions behind the padding's, a middle width that is rounded down."""
    config = {"model_type": "roberta", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    config |= {"pad_token_id": 4, "max_position_embeddings": 20, "vocab_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    text = {"hf_model_name": "words", "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"}
    made = hf_text("a model", {"embed_dim": 17, "text_cfg": text}, (tmp_path,)).config
    assert (made.skipped_positions, made.context, made.projection) == (5, 15, (24, 17))


class TestConfigurationsForTransformers:
    """Folders of mT5 and NLLB whose config.json asks for more than their weights are."""

    @pytest.fixture(params=["mt5", "m2m_100"])
    def made(self, made):
        return made

    def change(self, folder, **settings):
        path = folder / "words" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    @pytest.mark.parametrize("sizes", [{"vocab_size": 1 << 24}, {"d_ff": 1 << 24, "encoder_ffn_dim": 1 << 24}], ids=str)
    def test_what_does_not_fit_is_not_made(self, made, sizes):
        """Gigabytes of weights."""
        folder, _, _ = made
        self.change(folder, **sizes)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ModelError, match="Other shapes"):
            gem_fast.load(str(folder))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10

    def test_nor_the_decoder(self, made):
        folder, _, _ = made
        self.change(folder, decoder_ffn_dim=1 << 24, num_decoder_layers=9)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        gem_fast.load(str(folder))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10

    @pytest.mark.parametrize(
        "settings",
        [{"num_layers": 10**9, "encoder_layers": 10**9}, {"max_position_embeddings": 10**9}, {"d_model": 10**6}],
        ids=str,
    )
    def test_sizes_without_end(self, made, settings):
        folder, _, _ = made
        self.change(folder, **settings)
        with pytest.raises(ModelError, match=r"config\.json of its text tower has \w+=10+, of at most"):
            gem_fast.load(str(folder))

    @pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
    def test_attention_of_others_is_not_fetched(self, made, key):
        folder, _, _ = made
        self.change(folder, **{key: "someone/kernel"})
        with pytest.raises(ModelError, match=f"{key}='someone/kernel', not 'eager' or 'sdpa'"):
            gem_fast.load(str(folder))


def test_only_the_maker_s_own_thread_makes_weights_without_memory():
    with _weights_without_memory(), ThreadPoolExecutor(1) as pool:
        assert nn.Linear(2, 2).weight.is_meta
        assert not pool.submit(nn.Linear, 2, 2).result().weight.is_meta
    assert not nn.Linear(2, 2).weight.is_meta
