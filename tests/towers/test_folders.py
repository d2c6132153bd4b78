"""Models that describe themselves: open_clip's and Hugging Face's folders, the hub's cache, and what a tag knows."""

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from gem_fast.export.export_options import ExportOptions
from gem_fast.export.onnx_export import export_onnx
from PIL import Image

import gem_fast
from gem_fast import ModelError
from gem_fast.errors import ExportError
from gem_fast.preprocess import resized
from gem_fast.runtime import GemRuntime
from gem_fast.towers import hub
from gem_fast.towers.checkpoint import read_checkpoint
from gem_fast.towers.hugging_face import tower_settings
from gem_fast.towers.open_clip_files import pretrained_table
from gem_fast.towers.text_config import text_config
from tests.towers.clip_files import (
    CONFIG,
    TINY,
    hugging_face_state,
    make_clip,
    save_state,
    write_hugging_face,
    write_open_clip,
)

HALVES = (0.5, 0.5, 0.5)
IMAGES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "size": {"shortest_edge": 64}}


@pytest.fixture(scope="module")
def clip():
    return make_clip()


class TestLocalDir:
    def test_normalisation_and_size_are_the_models(self, tmp_path, clip):
        folder = write_open_clip(tmp_path / "ld", clip, mean=HALVES, std=[0.2, 0.3, 0.4], size=96)
        for arguments in ({}, {"weights": folder / "open_clip_model.safetensors"}, {"pretrained": "random"}):
            model = gem_fast.load(f"local-dir:{folder}", gem_blocks=2, **arguments)
            assert model.name == "ld"  # a path would tell runs apart that are the same
            assert (model.mean, model.std, model.defaults.size) == (HALVES, (0.2, 0.3, 0.4), 96)

    def test_what_the_config_leaves_out_is_clips_and_the_size_the_models(self, tmp_path, clip):
        model = gem_fast.load(f"local-dir:{write_open_clip(tmp_path / 'ld', clip)}", gem_blocks=2)
        assert (model.mean, model.std) == (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
        assert model.defaults.size == 64

    def test_features_are_open_clips(self, tmp_path, clip):
        folder = write_open_clip(tmp_path / "ld", clip)
        theirs = open_clip.create_model(f"local-dir:{folder}").eval()
        model = gem_fast.load(f"local-dir:{folder}", gem_blocks=2)
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            image = theirs.encode_image(pixels, normalize=True)
            text = theirs.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(["a photo of a cat."]), True)
        torch.testing.assert_close(model.features(pixels, original=True).original_class, image, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.encode_text("cat"), text, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        "weights",
        ["open_clip_pytorch_model.bin", "open_clip_pytorch_model.safetensors", "pytorch_model.bin", "mine.pt"],
    )
    def test_usual_names_of_weights(self, tmp_path, clip, weights):
        folder = write_open_clip(tmp_path / "ld", clip, weights=weights)
        for name in (str(folder), f"local-dir:{folder}"):
            checkpoint = read_checkpoint(name)
            assert checkpoint.source == str(folder / weights)
            assert torch.equal(checkpoint.vision_state["proj"], clip.visual.proj)

    def test_other_weights_are_a_file_or_a_folder(self, tmp_path, clip):
        folder = write_open_clip(tmp_path / "ld", clip, weights=None)
        (tmp_path / "other").mkdir()
        save_state(clip.state_dict(), tmp_path / "other" / "model.safetensors")
        for weights in (tmp_path / "other", tmp_path / "other" / "model.safetensors"):
            checkpoint = read_checkpoint(str(folder), weights=weights)
            assert checkpoint.source == str(tmp_path / "other" / "model.safetensors")

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ("{", "its open_clip_config.json can't be read"),
            ("[]", "its open_clip_config.json can't be read: it is no JSON object"),
            ("{}", "has no model_cfg of a CLIP"),
            ('{"model_cfg": {"embed_dim": 8}}', "has no model_cfg of a CLIP"),
            (
                json.dumps({"model_cfg": {**TINY, "colour": 1}}),
                "its model config has settings that are not known here: colour",
            ),
            (
                json.dumps(
                    {"model_cfg": {**TINY, "vision_cfg": {"attentional_pool": "cascade"}, "multimodal_cfg": {}}}
                ),
                "its vision tower has attentional_pool='cascade'",
            ),
            (
                json.dumps({"model_cfg": {**TINY, "text_cfg": {**TINY["text_cfg"], "use_pad_mask": True}}}),
                "is not supported: its text tower",
            ),
            (json.dumps({"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5]}}), "mean and std must be three numbers"),
            (json.dumps({"model_cfg": TINY, "preprocess_cfg": {"std": [0, 1, 1]}}), "mean and std must be three"),
            (json.dumps({"model_cfg": TINY, "preprocess_cfg": {"std": [float("nan"), 1, 1]}}), "mean and std must be"),
            (json.dumps({"model_cfg": TINY, "preprocess_cfg": {"mean": "grey"}}), "mean, std or size are no numbers"),
        ],
    )
    def test_configs_that_cannot_be_used(self, tmp_path, clip, config, reason):
        folder = write_open_clip(tmp_path / "ld", clip)
        (folder / "open_clip_config.json").write_text(config)
        with pytest.raises(ModelError, match=rf"local-dir:.*ld.*{re.escape(reason)}"):
            read_checkpoint(f"local-dir:{folder}")

    @pytest.mark.parametrize(
        ("tower", "settings", "reason"),
        [
            ("text", {"width": "wide"}, "width is 'wide', not a whole number above 0"),
            ("text", {"layers": 10**9}, "it asks for 1000000000 layers, of at most 1,024"),
            ("text", {"heads": 7}, "its heads do not share a width of 64"),
            ("text", {"mlp_ratio": float("inf")}, "mlp_ratio=inf"),
            ("text", {"mlp_ratio": 1e300}, "mlp_ratio=1e+300"),
            ("vision", {"mlp_ratio": 1e-3}, "mlp_ratio=0.001"),
            ("vision", {"norm_kwargs": {"eps": 10**400}}, "norm_kwargs={'eps': 1000"),
            ("text", {"pool_type": "eos", "eos_id": [2]}, "eos_id is [2], not a whole number from 0 on"),
            ("text", {"embed_cls": True, "pad_id": 10**30}, "pad_id is 1000000000000000000000000000000, not"),
            ("text", {"tokenizer_kwargs": ["clean"]}, "its tokenizer_kwargs are no settings by name"),
            ("text", {"tokenizer_kwargs": {"clean": ["lower"]}}, "its tokenizer has clean=['lower']"),
            ("vision", {"attentional_pool": True, "attn_pooler_queries": 0}, "attn_pooler_queries is 0, not a whole"),
            (
                "vision",
                {"timm_model_name": "local-dir:/", "timm_proj": "none"},
                "timm has no image tower 'local-dir:/'",
            ),
            (
                "vision",
                {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": ["token"], "timm_proj": ""},
                "timm_pool=['token'], not a name",
            ),
            ("text", {"norm_kwargs": {"bias": False}}, "norm_kwargs={'bias': False}"),
            ("text", {"act_kwargs": {"approximate": 3}}, "act_kwargs={'approximate': 3}"),
            ("text", {"tokenizer_kwargs": {"bpe_path": "/etc/hosts"}}, "its tokenizer has the settings bpe_path"),
            ("text", {"context_length": 0}, "context_length is 0, not a whole number above 0"),
            ("text", {"context_length": 1}, "its texts have a context_length of 1"),
            ("text", {"ls_init_value": "large"}, "ls_init_value='large'"),
            ("text", {"no_causal_mask": "false"}, "no_causal_mask='false', not true or false"),
            ("vision", {"no_ln_pre": 1}, "no_ln_pre=1, not true or false"),
            ("vision", {"patch_size": 0}, "patch_size is 0, not a whole number above 0"),
            ("vision", {"head_width": 40}, "its heads do not share a width of 128"),
            ("vision", {"width": 2**23, "patch_size": 2**23}, "no model can be made of its config"),
        ],
        ids=str,
    )
    def test_settings_of_which_no_model_can_be_made(self, tmp_path, clip, tower, settings, reason):
        config = {**TINY, f"{tower}_cfg": {**TINY[f"{tower}_cfg"], **settings}}
        folder = write_open_clip(tmp_path / "ld", clip, config, weights=None)
        with pytest.raises(ModelError, match=rf"local-dir:.*ld.*{re.escape(reason)}"):
            read_checkpoint(f"local-dir:{folder}", "random")

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"init_logit_scale": "large", "init_logit_bias": -10}, "init_logit_scale='large'"),
            ({"init_logit_scale": 1000, "init_logit_bias": -10}, "logit_scale is 1000"),
            ({"siglip": {}}, "has no model_cfg of a CLIP"),
            ({"blip": {}}, "has no model_cfg of a CLIP"),
        ],
        ids=str,
    )
    def test_settings_of_the_whole_model(self, tmp_path, clip, settings, reason):
        folder = write_open_clip(tmp_path / "ld", clip, {**TINY, **settings}, weights=None)
        with pytest.raises(ModelError, match=rf"local-dir:.*ld.*{re.escape(reason)}"):
            read_checkpoint(f"local-dir:{folder}", "random")

    @pytest.mark.parametrize(
        ("name", "value", "reason"),
        [
            ("logit_scale", torch.ones(2), r"is damaged: logit_scale is \[2\], not one number"),
            ("logit_scale", torch.tensor(1000.0), "can't be used: logit_scale is 1000"),
            ("logit_bias", torch.ones(0), r"is damaged: logit_bias is \[0\]"),
            ("visual.positional_embedding", torch.ones(()), r"positional_embedding \[\] instead of \[17, 128\]"),
            ("visual.conv1.weight", torch.ones(()), r"conv1\.weight \[\] instead of"),
        ],
        ids=["two-scales", "scale", "no-bias", "positions", "patches"],
    )
    def test_weights_of_impossible_shapes(self, tmp_path, clip, name, value, reason):
        folder = write_open_clip(tmp_path / "ld", clip, {**TINY, "init_logit_bias": -10}, weights=None)
        state = clip.state_dict() | {"logit_bias": torch.tensor(-10.0), name: value}
        save_state(state, folder / "open_clip_model.safetensors")
        with pytest.raises(ModelError, match=rf"^weights: .*ld/open_clip_model\.safetensors .*{reason}"):
            read_checkpoint(f"local-dir:{folder}")

    @pytest.mark.parametrize(
        ("place", "values"),
        [
            (("vision_cfg", "width"), [[], {}, None, "\0", 10**400]),
            (("vision_cfg", "timm_model_name"), [5, [5], {"a": 1}, "a\0b", "\x1b[2J", "a" * 5000]),
            (("vision_cfg", "timm_pool"), [5, []]),
            (("text_cfg", "context_length"), ["x", [], {}, 0.5, True, -1]),
            (("text_cfg", "vocab_size"), ["x", [], {}, 0.5]),
            (("text_cfg", "hf_model_name"), [5, ["a"], "a\0b", "a" * 5000]),
            (("text_cfg", "hf_tokenizer_name"), [5, ["a"], "a\0b", "a" * 5000]),
            (("text_cfg", "tokenizer_mode"), ["clips", [], 1]),
            (("init_logit_scale",), [[], {}, False, "", float("nan")]),
            (("embed_dim",), [[], {}, None, "\x1b[31m"]),
        ],
        ids=str,
    )
    def test_values_of_any_kind(self, tmp_path, clip, place, values):
        """Whatever JSON can hold: told in a line that can be printed, with weights and without."""
        folder = write_open_clip(tmp_path / "ld", clip)
        for value in values:
            config = json.loads(json.dumps(TINY))
            inner = config if len(place) == 1 else config[place[0]]
            inner[place[-1]] = value
            (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
            for pretrained in (None, "random"):
                with pytest.raises(ModelError, match=place[-1]) as error:
                    read_checkpoint(f"local-dir:{folder}", pretrained)
                assert str(error.value).isprintable()
                assert len(str(error.value)) < 500

    @pytest.mark.parametrize(
        "value", ["[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900, '"\\ud800"', '{"\\ud800": 1}', "1" * 5000]
    )
    def test_what_no_reader_of_a_config_expects(self, tmp_path, clip, value):
        folder = write_open_clip(tmp_path / "ld", clip)
        (folder / "open_clip_config.json").write_text('{"model_cfg": ' + value + "}")
        with pytest.raises(ModelError, match=r"its open_clip_config\.json can't be read: ") as error:
            read_checkpoint(f"local-dir:{folder}")
        assert str(error.value).isprintable()

    def test_a_height_and_a_width_whose_patches_would_make_a_square(self, tmp_path):
        wide = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": [32, 128]}}
        clip = make_clip(wide)
        folder = write_open_clip(tmp_path / "ld", clip, wide)
        model = gem_fast.load(f"local-dir:{folder}", gem_blocks=1)
        assert model.vision.config.grid == (2, 8)
        pixels = torch.randn(1, 3, 32, 128, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            image = clip.encode_image(pixels, normalize=True)
        torch.testing.assert_close(model.features(pixels, original=True).original_class, image, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("after", [False, True])
    def test_the_mean_of_patches_before_or_after_the_last_norm(self, tmp_path, after):
        config = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "pool_type": "avg", "final_ln_after_pool": after}}
        clip = make_clip(config)
        model = gem_fast.load(f"local-dir:{write_open_clip(tmp_path / 'ld', clip, config)}", gem_blocks=1)
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            image = clip.encode_image(pixels, normalize=True)
        torch.testing.assert_close(model.features(pixels, original=True).original_class, image, rtol=1e-5, atol=1e-6)

    def test_a_setting_that_changes_no_tower(self, tmp_path, clip):
        folder = write_open_clip(tmp_path / "ld", clip, {**TINY, "output_dict": True, "custom_text": None})
        assert read_checkpoint(f"local-dir:{folder}").vision_config.layers == TINY["vision_cfg"]["layers"]

    def test_a_text_tower_with_fewer_rows_than_the_tokenizer_has_tokens(self, tmp_path, clip):
        few = {**TINY, "text_cfg": {**TINY["text_cfg"], "vocab_size": 100}}
        model = gem_fast.load(
            f"local-dir:{write_open_clip(tmp_path / 'ld', clip, few, weights=None)}", "random", gem_blocks=1
        )
        with pytest.raises(ModelError, match="gives the token 49407, and the model knows 100"):
            model.encode_text("cat")

    def test_a_config_that_asks_for_more_than_its_weights(self, tmp_path, clip):
        """Refused before anything of that size is made."""
        huge = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "layers": 10**9}}
        with pytest.raises(ModelError, match="it asks for 1000000000 layers, of at most 1,024"):
            read_checkpoint(f"local-dir:{write_open_clip(tmp_path / 'a', clip, huge)}")
        wide = {**TINY, "text_cfg": {**TINY["text_cfg"], "mlp_ratio": 1e9}}
        with pytest.raises(ModelError, match=r"Other shapes: transformer\.resblocks\.0\.mlp\.c_fc\.weight"):
            read_checkpoint(f"local-dir:{write_open_clip(tmp_path / 'b', clip, wide)}")

    def test_missing(self, tmp_path, clip):
        with pytest.raises(ModelError, match=r"local-dir:.*no: there is no folder .*no$"):
            read_checkpoint(f"local-dir:{tmp_path / 'no'}")
        with pytest.raises(ModelError, match="has neither open_clip_config"):
            read_checkpoint(f"local-dir:{tmp_path}")
        with pytest.raises(ModelError, match="has neither open_clip_config"):
            read_checkpoint(str(tmp_path))
        folder = write_open_clip(tmp_path / "ld", clip, weights=None)
        with pytest.raises(ModelError, match="there is no file of weights of a usual name in"):
            read_checkpoint(f"local-dir:{folder}")
        for name in ("a.pt", "b.pt"):
            save_state(clip.state_dict(), folder / name)
        with pytest.raises(ModelError, match=r"it has a\.pt, b\.pt: give one as weights"):
            read_checkpoint(f"local-dir:{folder}")
        with pytest.raises(ModelError, match="is a file; give the name of its model, and the file as weights"):
            read_checkpoint(str(folder / "a.pt"))
        with pytest.raises(ModelError, match="brings its own weights"):
            read_checkpoint(f"local-dir:{folder}", "openai")


class TestHuggingFaceFolder:
    def test_all_is_taken_from_it(self, tmp_path, clip):
        folder = write_hugging_face(tmp_path / "hf", hugging_face_state(clip), IMAGES)
        model = gem_fast.load(str(folder), gem_blocks=2)
        assert (model.mean, model.std, model.defaults.size) == (HALVES, (0.25, 0.25, 0.25), 64)
        assert model.vision.config.activation == "gelu"
        pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            image = clip.encode_image(pixels, normalize=True)
            text = clip.encode_text(open_clip.SimpleTokenizer()(["a photo of a cat."]), normalize=True)
        torch.testing.assert_close(model.features(pixels, original=True).original_class, image, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.encode_text("cat"), text, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("images", "mean", "std", "size"),
        [
            ({"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size": 80}, (0, 0, 0), (1, 1, 1), 80),
            ({"do_normalize": False, "size": {"height": 96, "width": 112}}, (0, 0, 0), (1, 1, 1), 96),
            ({**IMAGES, "do_center_crop": True, "crop_size": {"height": 48, "width": 48}}, HALVES, (0.25,) * 3, 48),
            ({}, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD, 64),
            (
                dict.fromkeys(["do_rescale", "rescale_factor", "do_normalize", "resample", "size", "image_std"]),
                *(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD, 64),
            ),
        ],
        ids=["numbers", "no-normalisation", "crop", "nothing", "nulls"],
    )
    def test_preprocessing(self, tmp_path, clip, images, mean, std, size):
        folder = write_hugging_face(tmp_path / "hf", hugging_face_state(clip), images)
        checkpoint = read_checkpoint(str(folder))
        assert (checkpoint.mean, checkpoint.std, checkpoint.defaults.size) == (mean, std, size)

    @pytest.mark.parametrize(("resample", "kind"), [(2, "bilinear"), (3, "bicubic"), (None, "bicubic")])
    def test_interpolation(self, tmp_path, clip, resample, kind):
        images = {} if resample is None else {"resample": resample}
        model = gem_fast.load(str(write_hugging_face(tmp_path / "hf", hugging_face_state(clip), images)), gem_blocks=1)
        picture = Image.fromarray(np.arange(80 * 96 * 3, dtype=np.uint8).reshape(80, 96, 3))
        resized = torch.nn.functional.interpolate(
            torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None], (64, 48), mode=kind, antialias=True
        )
        assert np.array_equal(model.pixels(picture, (64, 48)), resized[0].permute(1, 2, 0).numpy())

    @pytest.mark.parametrize("resample", [0, 1, 9, [3], "cubic"], ids=str)
    def test_other_interpolations_are_refused(self, tmp_path, clip, resample):
        folder = write_hugging_face(tmp_path / "hf", hugging_face_state(clip), {"resample": resample})
        with pytest.raises(ModelError, match=r"its images are resized by .*; bicubic and bilinear are known"):
            read_checkpoint(str(folder))

    def test_an_export_resizes_as_the_model_does(self, tmp_path, clip, picture):
        folder = write_open_clip(tmp_path / "ld", clip, interpolation="bilinear")
        model = gem_fast.load(str(folder), gem_blocks=1)
        export_onnx(model, tmp_path / "out", ExportOptions(sizes=((64, 64),)))
        runtime, photo = GemRuntime(tmp_path / "out", threads=1), picture(90, 140)
        ours, theirs = (each.pixels(photo, (64, 64)).astype(int) for each in (model, runtime))
        assert abs(ours - theirs).max() <= 1
        bicubic = resized(photo, (64, 64)).astype(int)
        assert abs(theirs - bicubic).max() > 1
        with pytest.raises(ExportError, match="resizes images bicubically, and ld takes them bilinear"):
            export_onnx(model, tmp_path / "other", ExportOptions(sizes=((64, 64),), with_preprocess=True))

    def test_the_newer_file_of_preprocessing(self, tmp_path, clip):
        folder = write_hugging_face(tmp_path / "hf", hugging_face_state(clip))
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": IMAGES}))
        assert read_checkpoint(str(folder)).mean == HALVES

    @pytest.mark.parametrize(("act", "ours"), [("quick_gelu", "quick_gelu"), ("gelu_pytorch_tanh", "gelu_tanh")])
    def test_activations_and_epsilon(self, tmp_path, clip, act, ours):
        towers = {
            f"{tower}_config": {**CONFIG[f"{tower}_config"], "hidden_act": act, "layer_norm_eps": 1e-6}
            for tower in ("vision", "text")
        }
        checkpoint = read_checkpoint(str(write_hugging_face(tmp_path / "hf", hugging_face_state(clip), **towers)))
        assert (checkpoint.vision_config.activation, checkpoint.vision_config.norm_eps) == (ours, 1e-6)
        assert checkpoint.text.ln_final.eps == 1e-6

    @pytest.mark.parametrize("act", [{"hidden_act": "quick_gelu"}, {"hidden_act": None}], ids=["told", "default"])
    def test_old_configs_repeat_settings_with_the_last_word(self, tmp_path, clip, act):
        folder = write_hugging_face(
            tmp_path / "hf",
            hugging_face_state(clip),
            **{f"{tower}_config_dict": {**CONFIG[f"{tower}_config"], **act} for tower in ("vision", "text")},
        )
        assert read_checkpoint(str(folder)).vision_config.activation == "quick_gelu"

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"model_type": "align"}, "is of a 'align' model; clip, metaclip_2, siglip, siglip2 and blip are known"),
            ({"model_type": "clip_vision_model"}, "is of a 'clip_vision_model' model"),
            (
                {"vision_config": {**CONFIG["vision_config"], "num_attention_heads": 50}},
                "its 50 heads do not share a width of 128",
            ),
            ({"vision_config": {**CONFIG["vision_config"], "intermediate_size": 10**400}}, "sizes that are no numbers"),
            (
                {f"{tower}_config": {**CONFIG[f"{tower}_config"], "hidden_act": {}} for tower in ("vision", "text")},
                "its activation is {}; one of",
            ),
            (
                {"text_config": {**CONFIG["text_config"], "hidden_act": "quick_gelu"}},
                "activation is 'gelu' and 'quick",
            ),
            (
                {"text_config": {**CONFIG["text_config"], "vocab_size": 21128}},
                "21128 tokens; CLIPTokenizer with 49408 is needed",
            ),
            ({"vision_config": {**CONFIG["vision_config"], "hidden_size": "big"}}, "sizes that are no numbers"),
            ({"vision_config": {**CONFIG["vision_config"], "num_hidden_layers": 3}}, "blocks 2 instead of 3"),
        ],
    )
    def test_configs_that_cannot_be_used(self, tmp_path, clip, changed, reason):
        folder = write_hugging_face(tmp_path / "hf", hugging_face_state(clip), **changed)
        with pytest.raises(ModelError, match=re.escape(reason)):
            read_checkpoint(str(folder))

    @pytest.mark.parametrize("value", ["\x1b[2J", "a" * 5000, "a\nb", [["a"] * 5000]], ids=lambda v: str(v)[:5])
    @pytest.mark.parametrize("place", ["model_type", "hidden_act", "num_channels", "vocab_size"])
    def test_values_are_told_in_a_line_that_can_be_printed(self, tmp_path, clip, place, value):
        changed = {f"{tower}_config": {**CONFIG[f"{tower}_config"], place: value} for tower in ("vision", "text")}
        folder = write_hugging_face(tmp_path / "hf", hugging_face_state(clip), **changed, **{place: value})
        with pytest.raises(ModelError) as error:
            read_checkpoint(str(folder))
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 600

    def test_another_tokenizer_is_refused(self, tmp_path, clip):
        folder = write_hugging_face(tmp_path / "hf", hugging_face_state(clip))
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
        with pytest.raises(ModelError, match="its texts are split by XLMRobertaTokenizer"):
            read_checkpoint(str(folder))


class TestHub:
    """The hub's cache as its client lays it out; nothing is fetched."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        return tmp_path / "hub"

    def put(self, cache, folder, repository="someone/tiny"):
        place = cache / f"models--{repository.replace('/', '--')}"
        shutil.copytree(folder, place / "snapshots" / "0123abcd")
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("0123abcd")

    def test_open_clips_layout(self, cache, tmp_path, clip):
        self.put(cache, write_open_clip(tmp_path / "ld", clip, mean=HALVES, std=HALVES, size=80))
        checkpoint = read_checkpoint("hf-hub:someone/tiny")
        assert (checkpoint.mean, checkpoint.std, checkpoint.defaults.size) == (HALVES, HALVES, 80)
        assert checkpoint.source == "hf-hub:someone/tiny"
        assert torch.equal(checkpoint.vision_state["proj"], clip.visual.proj)

    @pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])
    def test_hugging_faces_layout(self, cache, tmp_path, clip, parts):
        state = hugging_face_state(clip)
        folder = write_hugging_face(tmp_path / "hf", state, IMAGES)
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
        if parts:
            (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
            index = {"weight_map": dict.fromkeys(state, "model-00001-of-00001.safetensors")}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        self.put(cache, folder)
        checkpoint = read_checkpoint("hf-hub:someone/tiny")
        assert (checkpoint.mean, checkpoint.defaults.size) == (HALVES, 64)
        torch.testing.assert_close(checkpoint.vision_state["proj"], clip.visual.proj, rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("name", "missing"),
        [
            ("hf-hub:someone/absent", "open_clip_config.json or config.json of someone/absent"),
            ("hf-hub:no such name!", "open_clip_config.json or config.json of no such name!"),
            ("hf-hub:", "open_clip_config.json or config.json of "),
        ],
    )
    def test_what_cannot_be_fetched_is_told_in_one_line(self, name, missing, capfd, caplog):
        with pytest.raises(ModelError, match=rf"^{missing} could not be fetched: .+") as error:
            read_checkpoint(name)
        assert len(str(error.value).splitlines()) == 1
        assert not caplog.records
        assert capfd.readouterr() == ("", "")

    def test_without_its_preprocessing_clips_is_taken_and_told(self, cache, tmp_path, clip):
        self.put(cache, write_hugging_face(tmp_path / "hf", hugging_face_state(clip)))
        absent = cache / "models--someone--tiny" / ".no_exist" / "0123abcd"
        with pytest.warns(
            UserWarning, match=r"^preprocessor_config\.json or processor.* of someone/tiny could not .*CLIP's"
        ):
            checkpoint = read_checkpoint("hf-hub:someone/tiny")
        assert checkpoint.mean == open_clip.OPENAI_DATASET_MEAN
        absent.mkdir(parents=True)
        for name in (
            "preprocessor_config.json",
            "processor_config.json",
            "tokenizer_config.json",
        ):  # known not to be in the repository
            (absent / name).touch()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_checkpoint("hf-hub:someone/tiny").mean == open_clip.OPENAI_DATASET_MEAN

    def test_the_newer_file_of_preprocessing_is_fetched(self, monkeypatch):
        asked = []
        monkeypatch.setattr(hub, "fetch", lambda _, names: Path("snapshot", names[names == hub._CONFIGS]))
        monkeypatch.setattr(hub, "_first", lambda _, names: asked.extend(names))
        assert hub.fetch_folder("someone/tiny") == Path("snapshot")
        assert asked == ["preprocessor_config.json", "processor_config.json", "tokenizer_config.json"]

    def test_weights_missing_from_the_cache(self, cache, tmp_path, clip):
        self.put(cache, write_open_clip(tmp_path / "ld", clip, weights=None))
        with pytest.raises(ModelError, match=r"open_clip_model\.safetensors or .* of someone/tiny could not"):
            read_checkpoint("hf-hub:someone/tiny")

    def test_a_tag_that_is_not_there(self, capfd, caplog):
        reason = r"^the weights ViT-B-32/openai could not be fetched or read: .*timm/vit_base_patch32_clip_224\.openai"
        with pytest.raises(ModelError, match=reason) as error:
            read_checkpoint("ViT-B-32", "openai")
        assert len(str(error.value).splitlines()) == 1
        assert not caplog.records
        assert capfd.readouterr() == ("", "")

    def test_a_tag_brings_its_mean_and_activation(self, cache, tmp_path, monkeypatch):
        """`mean` and `std` are the tag's, and the size stays the evaluation's."""
        name = "ViT-S-32-alt"
        small = make_clip(open_clip.get_model_config(name))
        folder = tmp_path / "tag"
        folder.mkdir()
        save_state(small.state_dict(), folder / "open_clip_model.safetensors")
        self.put(cache, folder, "someone/tag")
        tag = {"url": "", "hf_hub": "someone/tag/", "mean": HALVES, "std": (0.1, 0.2, 0.3), "quick_gelu": True}
        monkeypatch.setitem(pretrained_table(), name, {"theirs": tag})
        model = gem_fast.load(name, "theirs")
        assert (model.mean, model.std, model.source) == (HALVES, (0.1, 0.2, 0.3), "theirs")
        assert model.defaults.size == 448
        assert model.vision.config.activation == "quick_gelu"
        assert torch.equal(model.vision.patch_embedding.weight, small.visual.conv1.weight)


def test_widths_of_mlps_survive_the_ratio():
    """Of 896 and 899, `899 / 896 * 896` is less than 899."""
    for width, inner in ((896, 899), (1152, 4304), (7, 20)):
        settings = {**CONFIG["text_config"], "num_hidden_layers": 1, "hidden_size": width, "intermediate_size": inner}
        part = tower_settings(settings | {"layer_norm_eps": 1e-5})
        assert text_config({"embed_dim": 8, "text_cfg": part}).mlp_width == inner
