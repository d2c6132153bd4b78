"""Weights: which names are served and why others are not, local files, and files that must not be trusted."""

import logging
import pickle
import warnings

import open_clip
import pytest
import torch
from safetensors.torch import save_file

import gem_fast
from gem_fast import GemOptions, ModelError, pretrained_tags, supported_models
from gem_fast.method import as_method
from gem_fast.towers.checkpoint import read_checkpoint
from gem_fast.towers.configs import EMBEDDED, unsupported_models

SMALL = "ViT-S-32-alt"


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(1)
    return open_clip.CLIP(**open_clip.get_model_config(SMALL)).eval()


@pytest.fixture(scope="module")
def expected(clip):
    """One text's embedding by open_clip."""
    with torch.inference_mode():
        return clip.encode_text(open_clip.get_tokenizer(SMALL)(["a photo of a cat."]), normalize=True)


class TestNames:
    def test_supported_ones_are_open_clips_blips_or_embedded(self):
        names = supported_models()
        assert len(names) == len(set(names)) > 25
        assert set(names) - {*EMBEDDED, "blip-base", "blip-large"} <= set(open_clip.list_models())
        assert {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-B-16-quickgelu", "ViT-H-14"} <= set(names)
        assert {"blip-base", "ViT-B-16-SigLIP", "ViT-H-14-worldwide", "ViT-L-14-CLIPA", "PE-Core-B-16"} <= set(names)
        assert {"EVA02-B-16", "MobileCLIP2-L-14", "coca_ViT-L-14", "roberta-ViT-B-32", "nllb-clip-base-siglip"} <= set(
            names
        )
        assert sum("SigLIP" in name for name in names) == 26
        assert names[: len(EMBEDDED)] == list(EMBEDDED)
        told = unsupported_models()
        assert {*names, *told} >= set(open_clip.list_models())
        assert not set(names) & set(told)

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("RN50", "ResNet"),
            ("EVA02-E-14", "normalise what attention gives"),
            ("convnext_base", "ConvNeXt"),
            ("MobileCLIP2-S0", "FastViT"),
            ("MobileCLIP-B", "stem of convolutions"),
            ("ViTamin-L", "ViTamin"),
            ("vit_medium_patch16_gap_256", "timm_proj"),
        ],
    )
    def test_others_are_refused_with_the_reason_and_the_list(self, name, reason):
        assert name not in supported_models()
        with pytest.raises(ModelError, match=rf"{name} is not supported: .*({reason}).*Supported are: .*ViT-B-16"):
            read_checkpoint(name, "random")

    @pytest.mark.parametrize("name", ["ViT-B-17", "", "vit-b-16 ", "x" * 5000, "a\0b"], ids=lambda n: n[:9])
    def test_unknown_ones_are_refused_with_the_list(self, name):
        with pytest.raises(ModelError, match=r"no model is called .*supported are: .*ViT-B-16"):
            read_checkpoint(name, "random")

    def test_tags(self):
        assert "openai" in pretrained_tags("ViT-B-16")
        assert all(pretrained_tags(name) == [] for name in EMBEDDED)

    @pytest.mark.parametrize("pretrained", ["opanai", "weights.pt", ""], ids=repr)
    def test_an_unknown_tag_names_the_known_ones(self, pretrained):
        with pytest.raises(ModelError, match=r"its tags are: .*openai.*weights takes a local file"):
            read_checkpoint("ViT-B-32", pretrained)

    def test_neither_tag_nor_file(self):
        with pytest.raises(ModelError, match=r"ViT-B-32 needs either pretrained, one of .*openai.*random, or weights"):
            read_checkpoint("ViT-B-32")

    def test_tag_and_file(self, tmp_path):
        with pytest.raises(ModelError, match="needs either"):
            read_checkpoint(SMALL, "random", tmp_path / "w.safetensors")

    @pytest.mark.parametrize("arguments", [{"pretrained": "openai"}, {"weights": "w.pt"}], ids=lambda a: next(iter(a)))
    @pytest.mark.parametrize("name", EMBEDDED)
    def test_an_embedded_model_brings_its_weights(self, name, arguments):
        with pytest.raises(ModelError, match=f"{name} brings its own weights"):
            read_checkpoint(name, **arguments)

    def test_errors_are_value_errors(self):
        assert issubclass(ModelError, ValueError)


def test_random_weights_make_no_noise(caplog, recwarn):
    with caplog.at_level(logging.INFO):
        checkpoint = read_checkpoint(SMALL, "random")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not recwarn.list
    assert checkpoint.source == "random"
    assert checkpoint.mean == open_clip.OPENAI_DATASET_MEAN
    assert checkpoint.std == open_clip.OPENAI_DATASET_STD


def test_a_tag_that_cannot_be_fetched(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("gem_fast.towers.hub.hf_hub_download", offline)
    with pytest.raises(ModelError, match=r"ViT-B-32/openai could not be fetched or read: .*: no route to host$"):
        read_checkpoint("ViT-B-32", "openai")


class TestLocalFile:
    def check(self, path, clip, expected):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = gem_fast.load(SMALL, weights=path)
        assert model.source == str(path)
        torch.testing.assert_close(model.encode_text("cat"), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(model.vision.patch_embedding.weight, clip.visual.conv1.weight)
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return model.features(pixels)

    def test_all_kinds_give_the_same_features(self, tmp_path, clip, expected):
        state = clip.state_dict()
        save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "w.safetensors")
        torch.save(state, tmp_path / "w.pt")
        torch.save(
            {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, tmp_path / "t.pt"
        )
        torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        first, *others = (
            self.check(tmp_path / name, clip, expected) for name in ("w.safetensors", "w.pt", "t.pt", "old.pt")
        )
        for other in others:
            assert torch.equal(first, other)

    def test_half_precision_is_read(self, tmp_path, clip):
        torch.save({name: value.half() for name, value in clip.state_dict().items()}, tmp_path / "half.pt")
        model = gem_fast.load(SMALL, weights=str(tmp_path / "half.pt"))
        assert model.dtype == torch.float32
        torch.testing.assert_close(model.vision.patch_embedding.weight, clip.visual.conv1.weight, rtol=1e-2, atol=1e-3)

    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    @pytest.mark.parametrize("ending", [".pt", ".pth", ".bin"])
    def test_pickled_objects_are_refused_and_not_run(self, tmp_path, legacy, ending):
        planted = tmp_path / "planted"
        path = tmp_path / f"evil{ending}"
        torch.save({"state_dict": {"w": Evil(planted)}}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ModelError, match=rf"evil{ending} holds more than tensors.*never unpickled.*safetensors"):
            read_checkpoint(SMALL, weights=path)
        assert not planted.exists()

    def test_a_plain_pickle_is_refused_and_not_run(self, tmp_path):
        planted, path = tmp_path / "planted", tmp_path / "evil.pt"
        path.write_bytes(pickle.dumps(Evil(planted), protocol=2))
        with pytest.raises(ModelError, match=r"evil\.pt"):
            read_checkpoint(SMALL, weights=path)
        assert not planted.exists()
        pickle.loads(path.read_bytes())
        assert planted.exists()  # so the file would have worked

    @pytest.mark.parametrize("ending", [".safetensors", ".pt"])
    @pytest.mark.parametrize("damage", ["empty", "cut", "nonsense"])
    def test_damaged(self, tmp_path, clip, ending, damage):
        path = tmp_path / f"w{ending}"
        if damage == "cut":
            state = {"logit_scale": clip.logit_scale.detach(), "proj": clip.text_projection.detach()}
            save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
            path.write_bytes(path.read_bytes()[:-2000])
        else:
            path.write_bytes(b"" if damage == "empty" else b"nonsense" * 100)
        with pytest.raises(ModelError, match=rf"weights: .*w\{ending} (is|holds) .*(damaged|readable)") as error:
            read_checkpoint(SMALL, weights=path)
        assert not str(error.value).rstrip().endswith(":")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ({}, "holds an empty dictionary, no tensors"),
            ({"w": torch.zeros(2)}, "holds weights of no CLIP: w"),
            ([torch.zeros(2)], "holds a list, not a state dict"),
            (torch.zeros(2), "holds one tensor, not a state dict"),
            ({"epoch": 3, "lr": 0.1}, "holds no tensors by name, only 'epoch', 'lr'"),
        ],
        ids=["empty-dict", "other-keys", "list", "tensor", "settings"],
    )
    def test_not_a_state_dict_of_the_model(self, tmp_path, content, reason):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=rf"^weights: .*w\.pt {reason}"):
            read_checkpoint(SMALL, weights=tmp_path / "w.pt")

    def test_weights_of_another_architecture(self, tmp_path, clip):
        torch.save(clip.state_dict(), tmp_path / "small.pt")
        with pytest.raises(ModelError, match=r"small\.pt .*does not fit the model") as error:
            read_checkpoint("ViT-S-32", weights=tmp_path / "small.pt")
        assert len(str(error.value)) < 1000

    def test_missing_and_wrong_suffix(self, tmp_path):
        with pytest.raises(ModelError, match=r"there is no file .*no\.pt"):
            read_checkpoint(SMALL, weights=tmp_path / "no.pt")
        with pytest.raises(ModelError, match="there is no file"):
            read_checkpoint(SMALL, weights=tmp_path)
        (tmp_path / "w.onnx").write_bytes(b"x")
        with pytest.raises(ModelError, match=r"w\.onnx must be a \.safetensors or \.pt file"):
            read_checkpoint(SMALL, weights=tmp_path / "w.onnx")


class Evil:
    """Unpickling this creates a file."""

    def __init__(self, planted):
        self.planted = str(planted)

    def __reduce__(self):
        return (open, (self.planted, "w"))


class TestLoad:
    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ({"dtype": "float8"}, "dtype must be one of float32, bfloat16, float16, int8 .*, got float8"),
            ({"dtype": torch.int32}, "got torch.int32"),
            ({"device": "gpu"}, "'gpu' can't be used here"),
            ({"device": "cuda:99"}, "'cuda:99' can't be used here"),
            ({"gem_block": 6}, "unknown options .*gem_block.*known are gem_blocks, "),
            ({"gem_blocks": 0}, "gem_blocks must be 1 or more"),
            ({"gem_blocks": 13}, "gem_blocks is 13, but the model has 12 blocks"),
            ({"backend": "magic"}, "unknown backend 'magic'; the backends are reference, sdpa"),
            ({"projections": "qq"}, "projections must name"),
            ({"iterations": -1}, "iterations must be 0 or more"),
            ({"iterations": 1.5}, "iterations must be 0 or more, a whole number, got 1.5"),
            ({"gem_blocks": "6"}, "gem_blocks must be 1 or more, a whole number, got '6'"),
            ({"inverse_temperature": 0.0}, "inverse_temperature must be positive"),
            ({"inverse_temperature": float("inf")}, "inverse_temperature must be positive in float32 or None, got inf"),
            ({"inverse_temperature": 1e39}, "inverse_temperature must be positive in float32 or None, got 1e"),
            ({"device": "meta"}, "'meta' can't be used here"),
        ],
        ids=lambda value: "-".join(map(str, next(iter(value.items())))) if isinstance(value, dict) else "",
    )
    def test_wrong_arguments_say_what_is_right(self, arguments, reason):
        with pytest.raises(ValueError, match=reason):
            gem_fast.load(SMALL, "random", **arguments)

    @pytest.mark.parametrize("dtype", ["bfloat16", "bf16", torch.bfloat16], ids=str)
    def test_dtype_and_options(self, dtype, picture):
        model = gem_fast.load(SMALL, "random", dtype=dtype, gem_blocks=2, iterations=0)
        assert model.dtype == torch.bfloat16
        assert model.vision.method == as_method(GemOptions(gem_blocks=2, iterations=0))
        assert model.encode_text("cat").dtype == torch.float32
        assert model.segment(picture(), ["cat", "dog"], size=64).labels.shape == (48, 64)

    def test_the_backend_is_the_engines_and_no_option_of_the_method(self):
        """An unknown one is an error of `load` (above), a known one reaches the blocks and the decoder."""
        model = gem_fast.load(SMALL, "random", backend="sdpa")
        assert model.vision.backend == model.decoder.backend == "sdpa"
        assert gem_fast.load(SMALL, "random").decoder.backend is None
        assert "backend" not in GemOptions.__dataclass_fields__

    def test_a_text_cache_is_shared_by_loads(self, tmp_path, clip, monkeypatch):
        torch.save(clip.state_dict(), tmp_path / "w.pt")
        first, second = (gem_fast.load(SMALL, weights=tmp_path / "w.pt", text_cache=tmp_path / "c") for _ in range(2))
        row = first.encode_text("cat")
        monkeypatch.setattr("gem_fast.towers.text.TextEncoder.averaged", None)  # nothing may be left to encode
        assert torch.equal(second.encode_text("cat"), row)
