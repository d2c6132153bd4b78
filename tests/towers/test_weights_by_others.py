"""The same weights as others hold them: other names, wrappers, prefixes and archives give the same towers."""

import argparse
import json
import re
import warnings
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import gem_fast
from gem_fast import ModelError
from gem_fast.towers.checkpoint import read_checkpoint
from gem_fast.towers.text_tower import pack_text
from tests.command_line import invoke, plain
from tests.towers.clip_files import (
    OpenAIClip,
    hugging_face_state,
    make_clip,
    save_state,
    write_hugging_face,
    write_open_clip,
)
from tests.towers.text_tower import text_state

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")


@pytest.fixture(scope="module")
def clip():
    return make_clip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, clip):
    return write_open_clip(tmp_path_factory.mktemp("models") / "tiny", clip)


def check_same(checkpoint, clip):
    """Bit for bit the model's weights, in both towers."""
    for name, value in clip.visual.state_dict().items():
        assert torch.equal(checkpoint.vision_state[name], value), name
    text = pack_text(text_state(clip), checkpoint.text.config).state_dict()
    assert checkpoint.text.state_dict().keys() == text.keys()
    for name, value in checkpoint.text.state_dict().items():
        assert torch.equal(value, text[name]), name


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


WRAPPINGS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state},
    "model": lambda state: {"model": state, "epoch": 3},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
    "module": lambda state: {"module": state},
    "twice": lambda state: {"checkpoint": 1, "state_dict": {"model": state}},
    "module.": lambda state: prefixed("module.", state),
    "_orig_mod.": lambda state: prefixed("_orig_mod.", state),
    "model.": lambda state: {"state_dict": prefixed("model.", state)},
    "nested": lambda state: {"model": prefixed("_orig_mod.module.model.", state)},
    "compiled-tower": lambda state: {name.replace("visual.", "visual._orig_mod."): v for name, v in state.items()},
    "inside-another": lambda state: {**prefixed("clip.", state), "head.weight": torch.zeros(2, 2)},
    "text-tower-apart": lambda state: {
        name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}": value
        for name, value in state.items()
    },
    "flat-scale": lambda state: {**state, "logit_scale": state["logit_scale"].reshape(1)},
    "mask-and-bias": lambda state: {
        **state,
        "attn_mask": torch.full((77, 77), float("-inf")),
        "logit_bias": torch.tensor(-10.0),
    },
    "parameters": lambda state: {
        name: torch.nn.Parameter(value, requires_grad=value.is_floating_point()) for name, value in state.items()
    },
    "averaged": lambda state: {"n_averaged": torch.tensor(3), **prefixed("module.", state)},
    "beside-settings": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=1)},
    "beside-plain-values": lambda state: {
        "state_dict": state,
        "meta": [
            datetime.now(timezone.utc),
            timedelta(1),
            SimpleNamespace(a=1),
            1j,
            bytearray(b"1"),
            {1},
            frozenset([1]),
        ],
    },
}


OPEN_CLIPS_ALONE = ("compiled-tower", "text-tower-apart")


@pytest.mark.parametrize(
    ("wrapping", "names"),
    [
        *((wrapping, "open_clip") for wrapping in WRAPPINGS),
        *((wrapping, "hugging_face") for wrapping in WRAPPINGS if wrapping not in OPEN_CLIPS_ALONE),
    ],
)
def test_wrappers_and_prefixes(tmp_path, folder, clip, wrapping, names):
    state = clip.state_dict() if names == "open_clip" else hugging_face_state(clip)
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "w.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same(read_checkpoint(f"local-dir:{folder}", weights=tmp_path / "w.pt"), clip)


@pytest.mark.parametrize("names", ["open_clip", "hugging_face"])
@pytest.mark.parametrize("kind", ["a.safetensors", "a.bin", "legacy.pt", "protocol5.pt", "wrong_ending.bin"])
def test_kinds_of_files(tmp_path, folder, clip, kind, names):
    state = clip.state_dict() if names == "open_clip" else hugging_face_state(clip)
    path = tmp_path / kind
    if kind.startswith("legacy"):
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif kind.startswith("protocol5"):
        torch.save(state, path, pickle_protocol=5)
    else:
        save_state(state, path.with_suffix(".safetensors" if kind.startswith("wrong") else path.suffix))
        if kind.startswith("wrong"):
            path.with_suffix(".safetensors").rename(path)
    check_same(read_checkpoint(f"local-dir:{folder}", weights=path), clip)


def test_open_clips_training_checkpoint(tmp_path, folder, clip):
    optimizer = torch.optim.AdamW(clip.parameters())
    clip.visual.conv1.weight.grad = torch.ones_like(clip.visual.conv1.weight)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.param_groups[0]["weight_decay"] = 0.0
    optimizer.step()
    checkpoint = {
        "epoch": 32,
        "name": "a run",
        "state_dict": prefixed("module.", clip.state_dict()),
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0},
    }
    torch.save(checkpoint, tmp_path / "epoch_32.pt")
    check_same(read_checkpoint(f"local-dir:{folder}", weights=tmp_path / "epoch_32.pt"), clip)
    torch.save({"epoch": 32, "optimizer": optimizer.state_dict()}, tmp_path / "o.pt")
    with pytest.raises(ModelError, match=r"o\.pt holds the state of an optimizer, but no weights"):
        read_checkpoint(f"local-dir:{folder}", weights=tmp_path / "o.pt")
    torch.save(optimizer.state_dict(), tmp_path / "o.pt")
    with pytest.raises(ModelError, match=r"o\.pt holds the state of an optimizer, but no weights"):
        read_checkpoint(f"local-dir:{folder}", weights=tmp_path / "o.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:")
@pytest.mark.parametrize("make", ["trace", "script"])
def test_a_torchscript_archive(tmp_path, folder, clip, make, monkeypatch):
    """As OpenAI publishes its models. Neither torch's loader of archives nor its unpickler has a part in it."""
    model = OpenAIClip(clip)
    if make == "trace":
        scripted = torch.jit.trace(model, torch.zeros(1, 3, 64, 64), strict=False, check_trace=False)
    else:
        scripted = torch.jit.script(Plain(clip.state_dict()))
    scripted.save(str(tmp_path / "archive.pt"))
    monkeypatch.setattr(torch.jit, "load", None)
    monkeypatch.setattr(torch, "load", None)
    with pytest.warns(UserWarning, match="was probably trained with QuickGELU"):
        checkpoint = read_checkpoint(f"local-dir:{folder}", weights=tmp_path / "archive.pt")
    check_same(checkpoint, clip)


def test_half_precision_archives_are_widened(tmp_path, folder, clip):
    torch.save({name: value.half() for name, value in clip.state_dict().items()}, tmp_path / "half.pt")
    state = read_checkpoint(f"local-dir:{folder}", weights=tmp_path / "half.pt").vision_state
    assert torch.equal(state["conv1.weight"], clip.visual.conv1.weight.half().float())


def test_openai_state_dict(tmp_path, folder, clip):
    torch.save(OpenAIClip(clip).state_dict(), tmp_path / "openai.pt")
    check_same(read_quietly(f"local-dir:{folder}", tmp_path / "openai.pt"), clip)


def test_features_are_those_of_the_plain_way(tmp_path, folder, clip):
    save_state(hugging_face_state(clip), tmp_path / "hf.safetensors")
    save_state(clip.state_dict(), tmp_path / "plain.safetensors")
    models = [
        gem_fast.load(f"local-dir:{folder}", weights=tmp_path / name, gem_blocks=2)
        for name in ("hf.safetensors", "plain.safetensors")
    ]
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    first, second = (model.features(pixels, original=True) for model in models)
    assert torch.equal(first.patches, second.patches)
    assert torch.equal(models[0].encode_text("cat"), models[1].encode_text("cat"))
    square = models[0].features(pixels[..., :64], original=True)
    with torch.inference_mode():
        theirs = clip.encode_image(pixels[..., :64], normalize=True)
    torch.testing.assert_close(square.original_class, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_parts_with_an_index(tmp_path, folder, clip, ending):
    state = prefixed("model.", hugging_face_state(clip))
    stem = "model" if ending == ".safetensors" else "pytorch_model"
    names = [f"{stem}-0000{n}-of-00002{ending}" for n in (1, 2)]
    where = {name: names[place % 2] for place, name in enumerate(sorted(state))}
    for part in names:
        save_state({name: value for name, value in state.items() if where[name] == part}, tmp_path / part)
    index = tmp_path / f"{stem}{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    check_same(read_checkpoint(f"local-dir:{folder}", weights=index), clip)
    with pytest.raises(ModelError, match=f"is one part of several; give their index, {re.escape(index.name)}"):
        read_checkpoint(f"local-dir:{folder}", weights=tmp_path / names[0])
    twice = min(name for name in state if where[name] == names[0])
    rest = {name: value for name, value in state.items() if where[name] == names[1]}
    save_state(rest | {twice: state[twice]}, tmp_path / names[1])
    with pytest.raises(ModelError, match=f"names a part {names[1]}, which holds '{re.escape(twice)}' again; keep one"):
        read_checkpoint(f"local-dir:{folder}", weights=index)
    (tmp_path / names[1]).unlink()
    with pytest.raises(ModelError, match=f"names a part {names[1]}, which is not beside it"):
        read_checkpoint(f"local-dir:{folder}", weights=index)
    for other in ("../tiny/open_clip_model.safetensors", "", ".."):
        index.write_text(json.dumps({"weight_map": {"w": other}}))
        with pytest.raises(ModelError, match="which is not beside it"):
            read_checkpoint(f"local-dir:{folder}", weights=index)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_nan_and_infinity_are_refused(tmp_path, folder, clip, ending, value):
    state = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    state["visual.transformer.resblocks.1.mlp.c_fc.weight"][3, 5] = value
    path = save_state(state, tmp_path / f"w{ending}")
    reason = r"not usable: visual\.transformer\.resblocks\.1\.mlp\.c_fc\.weight holds NaN or infinite values"
    with pytest.raises(ModelError, match=reason):
        read_checkpoint(f"local-dir:{folder}", weights=path)


class TestWhatIsToldOfOtherWeights:
    @pytest.mark.parametrize(
        ("names", "kind"),
        [
            (["visual.layer1.0.conv1.weight", "visual.attnpool.positional_embedding"], "a ResNet CLIP"),
            (["module.visual.layer1.0.conv1.weight", "module.visual.attnpool.k_proj.weight"], "a ResNet CLIP"),
            (["visual.trunk.attn_pool.latent", "text.token_embedding.weight"], "SigLIP"),
            (["vision_model.head.probe", "text_model.head.weight", "logit_bias"], "SigLIP"),
            (["visual.trunk.blocks.0.norm1.weight"], "image tower is timm's"),
            (["visual_encoder.blocks.0.attn.qkv.weight", "text_encoder.embeddings.x"], "BLIP"),
            (["vision_model.encoder.layers.0.self_attn.qkv.weight"], "BLIP"),
            (["image_encoder.patch_embed.proj.weight", "mask_decoder.iou_token.weight"], "SAM"),
            (["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.x"], "Stable Diffusion"),
            (["down_blocks.0.resnets.0.conv1.weight", "up_blocks.0.resnets.0.conv1.weight"], "Stable Diffusion"),
            (["base_model.model.visual.conv1.lora_A.weight"], "a LoRA adapter"),
            (["lora_unet_down.lora_down.weight"], "a LoRA adapter"),
            (["visual.conv1.weight", "visual.class_embedding"], "the image tower of a CLIP alone"),
            (
                ["vision_model.embeddings.class_embedding", "visual_projection.weight"],
                "the image tower of a CLIP alone",
            ),
            (["token_embedding.weight", "ln_final.weight"], "the text tower of a CLIP alone"),
            (["text_model.embeddings.token_embedding.weight"], "the text tower of a CLIP alone"),
            (["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"], "an image transformer"),
            (["bert.embeddings.word_embeddings.weight"], "BERT"),
            (["model.layers.0.self_attn.q_proj.weight", "lm_head.weight"], "a model of language"),
            (["layer1.0.conv1.weight", "layer4.1.bn2.weight", "fc.weight"], "a ResNet alone"),
            (["weight", "bias"], "weights of no CLIP: "),
        ],
    )
    def test_it_is_named(self, tmp_path, folder, names, kind):
        path = save_state({name: torch.zeros(2, 2) for name in names}, tmp_path / "w.safetensors")
        with pytest.raises(ModelError, match=rf"w\.safetensors holds .*{re.escape(kind)}"):
            read_checkpoint(f"local-dir:{folder}", weights=path)

    def test_a_torchscript_archive_of_something_else(self, tmp_path, folder):
        torch.jit.trace(torch.nn.LayerNorm(8), torch.zeros(8)).save(str(tmp_path / "jit.pt"))
        reason = r"jit\.pt is a TorchScript archive that holds weights of no CLIP: (weight, bias|bias, weight)$"
        with pytest.raises(ModelError, match=reason) as error:
            read_checkpoint(f"local-dir:{folder}", weights=tmp_path / "jit.pt")
        assert "weights_only" not in str(error.value)

    def test_on_the_command_line_it_is_one_line(self, tmp_path):
        torch.jit.trace(torch.nn.LayerNorm(8), torch.zeros(8)).save(str(tmp_path / "jit.pt"))
        Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
        where = ("--out", tmp_path / "out", "--model", "ViT-S-32-alt", "--weights", tmp_path / "jit.pt")
        result = invoke("segment", tmp_path / "a.png", "--prompt", "cat", *where)
        assert result.exit_code == 2
        assert "jit.pt is a TorchScript archive that holds weights of no CLIP" in plain(result.stderr)
        assert len(plain(result.stderr).strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()

    def test_another_size_of_model(self, tmp_path):
        state = {
            "visual.conv1.weight": torch.zeros(1024, 3, 14, 14),
            "visual.class_embedding": torch.zeros(1024),
            "visual.positional_embedding": torch.zeros(1 + 16 * 16, 1024),
            "visual.proj": torch.zeros(1024, 768),
            "positional_embedding": torch.zeros(77, 768),
            "token_embedding.weight": torch.zeros(49408, 768),
            **{f"visual.transformer.resblocks.{i}.ln_1.bias": torch.zeros(1024) for i in range(24)},
            **{f"transformer.resblocks.{i}.ln_1.bias": torch.zeros(768) for i in range(12)},
        }
        path = save_state(state, tmp_path / "large.safetensors")
        reason = (
            r"large\.safetensors does not fit the model ViT-B-16, a ViT-B/16 \(width 768, 12 blocks\): it is of a "
            r"ViT-L/14 \(width 1024, 24 blocks\), with patch 14 instead of 16, .*; name the model ViT-L-14"
        )
        with pytest.raises(ModelError, match=reason):
            read_checkpoint("ViT-B-16", weights=path)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda state: state.pop("visual.ln_post.bias"), r"Missing keys: visual\.ln_post\.bias$"),
            (lambda state: state.update(more=torch.zeros(1)), "Unknown keys: more$"),
            (
                lambda state: state.update({"visual.ln_post.bias": torch.zeros(5)}),
                r"Other shapes: visual\.ln_post\.bias \[5\] instead of \[128\]$",
            ),
            (
                lambda state: state.update({"visual.ln_post.bias": torch.zeros(128, dtype=torch.int8)}),
                r"No floating numbers: visual\.ln_post\.bias torch\.int8$",
            ),
        ],
        ids=["missing", "unknown", "shape", "integers"],
    )
    def test_keys_and_shapes(self, tmp_path, folder, clip, change, reason):
        state = dict(clip.state_dict())
        change(state)
        path = save_state(state, tmp_path / "w.safetensors")
        with pytest.raises(ModelError, match=rf"does not fit the model local-dir:.*\. {reason}"):
            read_checkpoint(f"local-dir:{folder}", weights=path)

    def test_names_that_would_steer_a_terminal_are_escaped(self, tmp_path, folder, clip):
        state = clip.state_dict() | {"\x1b[2J\n\x07" + "x" * 5000: torch.zeros(1)}
        path = save_state(state, tmp_path / "w.safetensors")
        with pytest.raises(ModelError, match=r"Unknown keys: \\x1b\[2J\\n\\x07x") as error:
            read_checkpoint(f"local-dir:{folder}", weights=path)
        assert len(str(error.value)) < 500

    def test_two_models_in_one_file(self, tmp_path, folder, clip):
        state = clip.state_dict()
        path = save_state({**prefixed("student.", state), **prefixed("teacher.", state)}, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=r"holds several CLIP models, under 'student\.', 'teacher\.'; keep one"):
            read_checkpoint(f"local-dir:{folder}", weights=path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn, torch.int32], ids=str)
def test_projections_of_several_types(tmp_path, clip, dtype):
    """q in another type than k and v: as all of them become, and no numbers are taken for floats."""
    state = hugging_face_state(clip)
    name = "vision_model.encoder.layers.0.self_attn.q_proj.weight"
    state[name] = torch.ones_like(state[name]).to(dtype)
    folder = write_hugging_face(tmp_path / "hf", state)
    if dtype == torch.int32:
        with pytest.raises(ModelError, match="is damaged or does not fit"):
            read_checkpoint(str(folder))
        return
    packed = read_checkpoint(str(folder)).vision_state["transformer.resblocks.0.attn.in_proj_weight"]
    rest = clip.visual.transformer.resblocks[0].attn.in_proj_weight[128:]
    assert torch.equal(packed, torch.cat([torch.ones(128, 128), rest]))


def test_positions_of_another_size_are_kept(tmp_path, folder, clip):
    """Trained at another size, the model is the same: positions are not resampled twice."""
    larger = {**clip.state_dict(), "visual.positional_embedding": torch.randn(1 + 6 * 6, 128)}
    checkpoint = read_checkpoint(f"local-dir:{folder}", weights=save_state(larger, tmp_path / "w.pt"))
    assert checkpoint.vision_config.grid == (6, 6)
    assert torch.equal(checkpoint.vision_state["positional_embedding"], larger["visual.positional_embedding"])


def test_a_hugging_face_file_in_its_folder_is_the_folder(tmp_path, clip):
    saved = write_hugging_face(tmp_path / "hf", hugging_face_state(clip))
    check_same(read_checkpoint(str(saved)), clip)


def read_quietly(name, weights):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_checkpoint(name, weights=weights)


class Plain(torch.nn.Module):
    """Nested modules that hold a state dict and nothing else, for `torch.jit.script`."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            first, _, rest = name.partition(".")
            if rest:
                nested = self._modules.get(first)
                below = {n.partition(".")[2]: v for n, v in state.items() if n.startswith(f"{first}.")}
                if nested is None:
                    self.add_module(first, Plain(below))
            else:
                self.register_buffer(name, value.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x
