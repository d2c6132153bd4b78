"""What a state dict is of, by its names: for the error that says why it is not a CLIP that can be served."""

from collections.abc import Collection

# Parts of names, all of which must occur, and what they tell. The first line that fits counts.
_SIGNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("lora_A",), "a LoRA adapter, a change of another model's weights; merge it into them first"),
    (("lora_down",), "a LoRA adapter, a change of another model's weights; merge it into them first"),
    (("lora_up",), "a LoRA adapter, a change of another model's weights; merge it into them first"),
    (("exp_avg",), "the state of an optimizer"),
    (("diffusion_model.",), "Stable Diffusion"),
    (("first_stage_model.",), "Stable Diffusion"),
    (("cond_stage_model.",), "Stable Diffusion"),
    (("down_blocks.", "up_blocks."), "the image generator of Stable Diffusion or the like"),
    (("mask_decoder.",), "SAM, which takes no words"),
    (("qformer.",), "BLIP-2"),
    (("Qformer.",), "BLIP-2"),
    (("visual_encoder.blocks.",), "BLIP: name the model blip-base or blip-large"),
    (("vision_model.encoder.layers.0.self_attn.qkv",), "BLIP in Hugging Face's names: load its folder"),
    (("text_decoder.",), "CoCa or BLIP: name that model"),
    (("visual.layer1.", "visual.attnpool."), "a ResNet CLIP; only vision transformers are served"),
    (("visual.trunk.attn_pool.",), "SigLIP or PE in open_clip's names: name the model, such as ViT-B-16-SigLIP"),
    (("visual.trunk.",), "a CLIP whose image tower is timm's (EVA, ConvNeXt, MobileCLIP and others): name that model"),
    (("vision_model.head.",), "SigLIP in Hugging Face's names: load its folder"),
    (("image_encoder.model.",), "MobileCLIP"),
    (("language_model.",), "a model of language with images"),
    (("lm_head.",), "a model of language"),
    (("model.layers.0.self_attn.",), "a model of language"),
    (("prompt_learner.",), "learned prompts, without CLIP"),
    (("vision_model.embeddings.", "~text_model."), "the image tower of a CLIP alone, in Hugging Face's names"),
    (("text_model.embeddings.", "~vision_model."), "the text tower of a CLIP alone, in Hugging Face's names"),
    (("\nvisual.conv1.", "~token_embedding."), "the image tower of a CLIP alone"),
    (("\ntoken_embedding.", "~\nvisual."), "the text tower of a CLIP alone"),
    (("\nconv1.weight", "\nclass_embedding", "\ntransformer.resblocks."), "the image tower of a CLIP alone"),
    (
        ("text_model.embeddings.word_embeddings.", "vision_model."),
        "a CLIP whose text tower is BERT (Chinese CLIP, AltCLIP)",
    ),
    (
        ("text.transformer.embeddings.",),
        "a CLIP whose text tower is one of Hugging Face's models: name it, such as roberta-ViT-B-32",
    ),
    (("embeddings.word_embeddings.",), "BERT or another model of texts alone"),
    (("patch_embed.proj.",), "an image transformer alone (timm, DINO, MAE)"),
    (("embeddings.patch_embeddings.",), "an image transformer alone, in Hugging Face's names"),
    (("\nlayer1.0.conv1.", "\nlayer4."), "a ResNet alone"),
)


def kind_of_state(names: Collection[str]) -> str | None:
    """What the weights with these names are, or None if nothing is known of them.

    `~` before a part: it is absent;
    a line's end: the name begins with it.
    """
    text = "".join(f"\n{name}" for name in names)
    for parts, kind in _SIGNS:
        if all((part[1:] not in text) if part[0] == "~" else (part in text) for part in parts):
            return kind
    return None
