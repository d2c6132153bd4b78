"""`gem-fast models`."""

from .terminal import console


def models() -> None:
    """List the models that can be loaded, with their pretrained tags."""
    from gem_fast import pretrained_tags, supported_models

    names = supported_models()
    for name in names:
        tags = ", ".join(pretrained_tags(name)) or ("(embedded)" if name == "gem-tiny" else "random")
        # A line each, whatever the width, so that grep finds the tags with the name.
        console.print(f"{name:{max(map(len, names))}}  {tags}", markup=False, highlight=False, soft_wrap=True)
