"""A tiny CLIP and its weights under the names and in the wrappings of others."""

import json

import open_clip
import torch
from safetensors.torch import save_file

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 128, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
SMALLEST = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
}
CONFIG = {
    "model_type": "clip",
    "projection_dim": 32,
    "vision_config": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
        "hidden_act": "gelu",
    },
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
    },
}


def make_clip(config=TINY):
    """open_clip's model with weights of which none is zero or one."""
    torch.manual_seed(3)
    clip = open_clip.CLIP(**json.loads(json.dumps(config))).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return clip


def write_open_clip(folder, clip, config=TINY, weights="open_clip_model.safetensors", **preprocess):
    """A folder as open_clip writes it."""
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    if weights:
        save_state(clip.state_dict(), folder / weights)
    return folder


def write_hugging_face(folder, state, images=None, **changed):
    """A folder as transformers writes it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changed}))
    if images is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(images))
    save_state(state, folder / "model.safetensors")
    return folder


def save_state(state, path):
    if path.suffix == ".safetensors":
        save_file({name: value.detach().contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def hugging_face_state(clip):
    """The weights under the names of transformers' `CLIPModel`."""
    named = {"logit_scale": clip.logit_scale.detach()}
    towers = (("vision_model", clip.visual), ("text_model", clip))
    for tower, module in towers:
        for i, block in enumerate(module.transformer.resblocks):
            layer = f"{tower}.encoder.layers.{i}"
            halves = zip(block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3), strict=True)
            for letter, (weight, bias) in zip("qkv", halves, strict=True):
                named[f"{layer}.self_attn.{letter}_proj.weight"] = weight
                named[f"{layer}.self_attn.{letter}_proj.bias"] = bias
            parts = {
                "self_attn.out_proj": block.attn.out_proj,
                "layer_norm1": block.ln_1,
                "layer_norm2": block.ln_2,
                "mlp.fc1": block.mlp.c_fc,
                "mlp.fc2": block.mlp.c_proj,
            }
            for name, part in parts.items():
                named[f"{layer}.{name}.weight"], named[f"{layer}.{name}.bias"] = part.weight, part.bias
    norms = {
        "vision_model.pre_layrnorm": clip.visual.ln_pre,
        "vision_model.post_layernorm": clip.visual.ln_post,
        "text_model.final_layer_norm": clip.ln_final,
    }
    for name, norm in norms.items():
        named[f"{name}.weight"], named[f"{name}.bias"] = norm.weight, norm.bias
    named["vision_model.embeddings.class_embedding"] = clip.visual.class_embedding
    named["vision_model.embeddings.patch_embedding.weight"] = clip.visual.conv1.weight
    named["vision_model.embeddings.position_embedding.weight"] = clip.visual.positional_embedding
    named["vision_model.embeddings.position_ids"] = torch.arange(len(clip.visual.positional_embedding))[None]
    named["text_model.embeddings.token_embedding.weight"] = clip.token_embedding.weight
    named["text_model.embeddings.position_embedding.weight"] = clip.positional_embedding
    named["visual_projection.weight"] = clip.visual.proj.T
    named["text_projection.weight"] = clip.text_projection.T
    return {name: value.detach().clone() for name, value in named.items()}


class OpenAIClip(torch.nn.Module):
    """A model with the names of OpenAI's archives, the three numbers among its buffers."""

    def __init__(self, clip):
        super().__init__()
        for name in ("visual", "transformer", "token_embedding", "ln_final"):
            setattr(self, name, getattr(clip, name))
        self.positional_embedding, self.text_projection = clip.positional_embedding, clip.text_projection
        self.logit_scale = clip.logit_scale
        numbers = {
            "input_resolution": clip.visual.image_size[0],
            "context_length": clip.context_length,
            "vocab_size": clip.vocab_size,
        }
        for name, value in numbers.items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, pixels):
        return self.visual(pixels)
