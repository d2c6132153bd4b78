"""Tokenizers of files against the libraries' own, and files that are none."""

import json
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tokenizers import Regex, normalizers, pre_tokenizers, processors

from gem_fast import ModelError
from gem_fast.tokenizer_file import _longest_of
from gem_fast.towers.model_tokenizer import tokenizer_of
from gem_fast.towers.tokenizers import file_tokenizer
from tests.towers.blip_models import BERT, write_vocabulary
from tests.towers.families import CONFIGS, word_tokenizer

TEXTS = ["a photo of the cat.", "Red_CAR!!  in the bus, tree", "", "a " * 40, "unknown 猫 cafés", "[SEP] dog [MASK]"]


def precompiled(letters):
    """SentencePiece's map of characters that puts so many letters for a `c`: a double array of its trie, then texts."""
    units = [0] * 512
    units[0], units[256 ^ ord("c")], units[300] = 256 << 10, (256 ^ ord("c") ^ 300) << 10 | 1 << 8 | ord("c"), 1 << 31
    trie = struct.pack("<512I", *units)
    rule = normalizers.Precompiled(struct.pack("<I", len(trie)) + trie + b"c" * letters + b"\0")
    assert len(rule.normalize_str("c")) == letters
    return rule


def transformers():
    return pytest.importorskip("transformers", reason="the truth is transformers' own tokenizer")


@pytest.fixture
def words(tmp_path):
    """A folder with a `tokenizer.json` and what transformers writes beside it."""
    made = word_tokenizer()
    made.no_padding()
    made.save(str(tmp_path / "tokenizer.json"))
    beside = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(beside))
    return tmp_path


@pytest.mark.parametrize("name", ["siglip", "metaclip2"])
def test_ids_are_those_of_open_clip_s_wrapper(words, name):
    transformers()
    from open_clip.tokenizer import HFTokenizer

    text = CONFIGS[name]["text_cfg"]
    theirs = HFTokenizer(str(words), context_length=12, **text.get("tokenizer_kwargs", {}))
    ours = tokenizer_of("a model", CONFIGS[name], words)
    assert torch.equal(ours(TEXTS), theirs(TEXTS))
    assert torch.equal(tokenizer_of("a model", CONFIGS[name], words / "tokenizer.json")(TEXTS), theirs(TEXTS))


@pytest.mark.parametrize("lower", [True, False])
def test_vocabularies_give_berts_ids(tmp_path, lower):
    path = write_vocabulary(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(BERT | {"do_lower_case": lower}))
    theirs = transformers().BertTokenizer.from_pretrained(str(tmp_path))
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt").input_ids
    assert torch.equal(file_tokenizer(path, 16)(TEXTS), expected)
    assert torch.equal(file_tokenizer(tmp_path, 16)(TEXTS), expected)


@pytest.mark.parametrize(
    "beside",
    [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}],
    ids=str,
)
def test_settings_of_vocabularies_are_berts(tmp_path, beside):
    """Accents, Chinese letters within words, and words of up to 100 letters, each of which shows in the ids."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "cat",
        "猫",
        "cafe",
        "café",
        "Cat",
        "a",
        "##a",
        "##猫",
        "##cat",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(BERT | beside))
    texts = ["猫cat猫", "café Cat cafe", "a" * 60, "a" * 100, "a" * 101]
    theirs = transformers().BertTokenizer.from_pretrained(str(tmp_path))
    expected = theirs(texts, padding="max_length", truncation=True, max_length=110, return_tensors="pt").input_ids
    assert torch.equal(file_tokenizer(tmp_path, 110)(texts), expected)


def test_clipas_drops_the_separator(tmp_path):
    write_vocabulary(tmp_path)
    transformers()
    from open_clip.tokenizer import HFTokenizer

    theirs = HFTokenizer(str(tmp_path), context_length=12, strip_sep_token=True)
    ours = tokenizer_of("a model", CONFIGS["clipa"], tmp_path)
    assert torch.equal(ours(TEXTS), theirs(TEXTS))


def test_counts_are_of_whole_texts(words):
    tokenizer = file_tokenizer(words, 12)
    assert tokenizer.added == 1
    assert len(tokenizer.encode("a " * 40)) == 40
    assert tokenizer(["a " * 40]).shape == (1, 12)


@pytest.mark.parametrize(
    ("padding", "expected"), [({"pad_token": "dog"}, "dog"), ({"pad_token": {"content": "cat"}}, "cat"), ({}, "<pad>")]
)
def test_padding_is_what_the_files_say(words, padding, expected):
    (words / "tokenizer_config.json").write_text(json.dumps(padding))
    word_tokenizer().save(str(words / "tokenizer.json"))  # which says <pad>
    assert file_tokenizer(words, 12).padding[0] == expected


def test_bare_file_of_the_first_siglip_is_padded_with_its_end(words):
    (words / "tokenizer_config.json").unlink()
    assert file_tokenizer(words, 12).padding == ("</s>", 1)


class TestRefusals:
    def test_missing_ones_are_told_with_where_they_come_from(self, tmp_path, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match=r"ViT-X needs a tokenizer, that of someone/siglip .* as tokenizer"):
            tokenizer_of("ViT-X", CONFIGS["siglip"])
        with pytest.raises(ModelError, match=r"has neither tokenizer\.json nor"):
            tokenizer_of("ViT-X", CONFIGS["siglip"], tmp_path)
        with pytest.raises(ModelError, match="there is no such file"):
            tokenizer_of("ViT-X", CONFIGS["siglip"], tmp_path / "no.json")

    def test_a_clip_has_its_own(self, words):
        with pytest.raises(ModelError, match="CLIP's own tokenizer"):
            tokenizer_of("ViT-X", {"text_cfg": {}}, words)

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1.0"}', "null", "\0" * 99], ids=range(6))
    def test_damaged_files(self, tmp_path, content):
        for name in ("tokenizer.json", "vocab.txt"):
            (tmp_path / name).write_text(content)
            with pytest.raises(ModelError, match=name):
                file_tokenizer(tmp_path / name, 12)

    @pytest.mark.parametrize(
        ("rules", "refused"),
        [
            ([normalizers.Replace("a", "aa")] * 16, False),
            ([normalizers.Replace("a", "aa")] * 40, True),
            ([normalizers.Replace("aa", "aa"), normalizers.Replace("  ", " ")] * 40, False),
            ([normalizers.Replace(Regex("x*"), "x" * 300)] * 2, True),
            ([normalizers.Replace(Regex("[0-9]|\\s+"), " ")] * 40, False),
            ([normalizers.Replace(Regex("\\s+"), "")] * 40, False),
            ([normalizers.Replace(Regex("(?=é)"), "é")] * 40, True),
            ([normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents(), normalizers.Strip()], False),
            ([normalizers.Replace("c", "é"), *[normalizers.ByteLevel()] * 40], True),
            ([precompiled(300)] * 2, True),
            ([precompiled(30)] * 2, False),
            ([normalizers.Replace(Regex(""), "x")] * 40, True),
            ([normalizers.Replace(Regex("q"), "xy")] * 40, True),
            ([normalizers.Prepend("▁" * 300), normalizers.Sequence([normalizers.Prepend("▁" * 300)])], True),
            ([normalizers.Prepend("▁")] * 40, True),
            ([normalizers.Replace(Regex("^$"), "x")] * 40, True),
        ],
        ids=range(16),
    )
    def test_rules_that_make_a_text_longer_and_longer(self, tmp_path, rules, refused):
        made = word_tokenizer()
        made.normalizer = normalizers.Sequence(rules)
        made.save(str(tmp_path / "tokenizer.json"))
        if not refused:
            assert file_tokenizer(tmp_path, 12)(["cat"]).shape == (1, 12)
            return
        with pytest.raises(ModelError, match="it makes texts more than 65,536 times as long"):
            file_tokenizer(tmp_path, 12)

    def test_what_is_put_for_a_letter_lies_behind_the_trie(self):
        assert _longest_of(struct.pack("<I", 8) + b"no texts" + b"abc\0de\0") == 3
        assert _longest_of(struct.pack("<I", 8) + b"no texts") == 1

    @pytest.mark.parametrize(
        "rule",
        [
            pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)] * 30),
            pre_tokenizers.Sequence(
                [pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always")] * 30)]
            ),
            processors.TemplateProcessing(single=" ".join(["$A"] * 70_000), special_tokens=[]),
        ],
        ids=range(3),
    )
    def test_other_rules_that_do(self, tmp_path, rule):
        made = word_tokenizer()
        if isinstance(rule, processors.PostProcessor):
            made.post_processor = rule
        else:
            made.pre_tokenizer = rule
        made.save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(ModelError, match="it makes texts more than 65,536 times as long"):
            file_tokenizer(tmp_path, 12)

    def test_a_template_that_repeats_a_text(self, tmp_path):
        made = word_tokenizer()
        made.post_processor = processors.TemplateProcessing(single=" ".join(["$A"] * 30), special_tokens=[])
        made.save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(ModelError, match="repeats a text after cutting it"):
            file_tokenizer(tmp_path, 8)(["a cat"])

    @pytest.mark.filterwarnings("ignore")
    def test_an_expression_without_an_end(self, tmp_path):
        """It ends in a panic of the library, which is no Exception."""
        made = word_tokenizer()
        made.pre_tokenizer = pre_tokenizers.Split(Regex("(x+x+)+y"), "isolated")
        made.save(str(tmp_path / "tokenizer.json"))
        tokenizer = file_tokenizer(tmp_path, 12)
        for split in (tokenizer.encode, lambda text: tokenizer([text])):
            with pytest.raises(ModelError, match=r"can't split a text: .*retry-limit"):
                split("x" * 60)

    def test_threads_do_not_cut_each_others_texts(self, words):
        tokenizer, text = file_tokenizer(words, 4), " ".join(["cat"] * 50)
        with ThreadPoolExecutor(4) as pool:
            counts = pool.map(
                lambda n: len(tokenizer.encode(text)) if n % 2 else tokenizer([text]).shape[1], range(400)
            )
            assert set(counts) == {50, 4}

    def test_files_of_another_model(self, words):
        with pytest.raises(ModelError, match=r"has 14 tokens, and the model knows 10"):
            file_tokenizer(words, 12, vocabulary=10)
        (words / "tokenizer_config.json").write_text(json.dumps({"padding_side": "left"}))
        with pytest.raises(ModelError, match="puts its padding before the texts"):
            file_tokenizer(words, 12)
        (words / "tokenizer_config.json").unlink()
        with pytest.raises(ModelError, match="puts 1 tokens around each text"):
            file_tokenizer(words, 1)

    @pytest.mark.parametrize("use", [lambda made: made(["cat"]), lambda made: made.encode("cat")], ids=["ids", "count"])
    def test_files_without_a_token_for_what_is_unknown(self, tmp_path, use):
        made = json.loads(word_tokenizer().to_str())
        del made["model"]["vocab"]["cat"], made["model"]["vocab"]["<unk>"]
        made["added_tokens"] = [each for each in made["added_tokens"] if each["content"] != "<unk>"]
        (tmp_path / "tokenizer.json").write_text(json.dumps(made))
        with pytest.raises(ModelError, match=r"the tokenizer can't split a text: .*UNK"):
            use(file_tokenizer(tmp_path, 12))

    def test_files_too_large_are_not_read(self, tmp_path):
        with (tmp_path / "tokenizer.json").open("wb") as file:
            file.truncate(300 << 20)
        with pytest.raises(ModelError, match="more than 256 MB"):
            file_tokenizer(tmp_path, 12)

    def test_unknown_settings(self, words):
        text = {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"clean": "shout"}, "vocab_size": 64}
        with pytest.raises(ModelError, match="clean='shout'"):
            tokenizer_of("ViT-X", {"text_cfg": text}, words)
        with pytest.raises(ModelError, match="tokenizer_mode='clips', which is not known here"):
            tokenizer_of("ViT-X", {"text_cfg": text | {"tokenizer_mode": "clips"}}, words)
        text["tokenizer_kwargs"] = {"trust_remote_code": True}
        with pytest.raises(ModelError, match="settings trust_remote_code"):
            tokenizer_of("ViT-X", {"text_cfg": text}, words)
