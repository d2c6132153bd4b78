"""`gem-fast models`."""

from ..terminal import fail, say


def models() -> None:
    """List the models that can be loaded, with their pretrained tags."""
    import gem_fast

    try:
        supported_models, pretrained_tags = gem_fast.supported_models, gem_fast.pretrained_tags
    except gem_fast.ModelError as error:  # without torch there is none
        fail(str(error))
    names = supported_models()
    for name in names:
        tags = ", ".join(pretrained_tags(name)) or ("(embedded)" if name == "gem-tiny" else "random")
        # A line each, whatever the width, so that grep finds the tags with the name.
        say(f"{name:{max(map(len, names))}}  {tags}")
