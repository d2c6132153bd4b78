"""`gem-fast models`."""

from collections.abc import Iterator
from typing import Annotated

import typer

from ..terminal import fail, say


def models(name: Annotated[str | None, typer.Argument(help="Tell of this model alone.")] = None) -> None:
    """List the models that can be loaded, with their pretrained tags, and why others of open_clip can't.

    Of one model: its input and defaults, and its tags, or, of an embedded one, the words that it knows, as
    --prompts-file takes them.
    """
    from gem_fast.errors import ModelError

    try:
        for line in listed() if name is None else told(name):
            say(line)
    except ModelError as error:  # without open_clip's files only the embedded model is known
        fail(str(error))


def listed() -> Iterator[str]:
    """A line for each model, whatever the width, so that grep finds the tags with the name."""
    from gem_fast.towers.configs import supported_models, unsupported_models

    names = supported_models()
    for name in names:
        yield f"{name:{max(map(len, names))}}  {', '.join(tags(name)) or '(embedded)'}"
    for name, reason in unsupported_models().items():
        yield f"{name}: not supported, {reason}"


def tags(name: str) -> list[str]:
    """What `--pretrained` takes of a model that does not bring its weights."""
    from gem_fast.towers.configs import EMBEDDED, pretrained_tags

    return [] if name in EMBEDDED else pretrained_tags(name) or ["random"]


def told(name: str) -> Iterator[str]:
    """Lines about one model."""
    from gem_fast.options import Defaults
    from gem_fast.towers.configs import find_config
    from gem_fast.towers.model_tokenizer import tokenizer_source
    from gem_fast.towers.served import vision_config, why_unsupported

    config = find_config(name)
    if config is None:
        fail(f"no model is called {name!r}; `gem-fast models` lists them")
    if reason := why_unsupported(config.model_cfg):
        fail(f"{name} is not supported: {reason}")
    vision, usual = vision_config(config.model_cfg), Defaults(**config.defaults)
    height, width = (side * vision.patch_size for side in vision.grid)
    yield (
        f"# {name}: patches of {vision.patch_size} px, trained at {height}×{width}; "
        f"defaults: size {usual.size}, threshold {usual.threshold:g}, "
        f"scale {'of the weights' if 'init_logit_bias' in config.model_cfg else f'{usual.logit_scale:g}'}"
    )
    if words := tokenizer_source(config.model_cfg):
        yield f"# its tokenizer is that of {words}: tokenizer.json or vocab.txt, which --tokenizer takes"
    yield from tags(name)
    yield from (", ".join([word, *synonyms]) for word, synonyms in config.vocabulary.items())
