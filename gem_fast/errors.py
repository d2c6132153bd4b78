"""Errors that several parts raise. Needs no torch."""


class ModelError(ValueError):
    """A model that can't be loaded; the message says why and what would be right."""


class ImageError(ValueError):
    """An image that can't be used; the message names it and the reason."""


class ExportError(ValueError):
    """An export that can't be made, or an exported folder that can't be used; the message says what would be right."""


def missing_extra(purpose: str, extra: str, error: ImportError) -> ModelError:
    """The error for a package that is not installed, with the extra that brings it."""
    return ModelError(f'{purpose} needs {error.name}, which is not installed: pip install "gem_fast[{extra}]"')
