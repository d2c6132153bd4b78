"""Errors that several parts raise, and warnings. Needs no torch."""

import os
import sys
import warnings

_SHOWN = 60  # letters of a value of others


class ModelError(ValueError):
    """A model that can't be loaded; the message says why and what would be right.

    It quotes files and configurations of others: what is no printable character is written as Python escapes it.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(x if x.isprintable() else repr(x)[1:-1] for x in message))


class ImageError(ValueError):
    """An image that can't be used; the message names it and the reason."""


class ExportError(ValueError):
    """An export that can't be made, or an exported folder that can't be used; the message says what would be right."""


class GraphError(RuntimeError):
    """An exported graph that can't be computed, for want of memory above all; the message names it and the reason."""


def is_failure(error: BaseException) -> bool:
    """Whether what was done has failed: any Exception, and the panic of a library in Rust, which is none."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def shown(value: object) -> str:
    """What somebody's file has for a value, in a message: as Python writes it, and not all of it if it is long."""
    return cut(repr(value))


def cut(text: str) -> str:
    """A text of others for a message, not all of it if it is long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def missing_extra(purpose: str, extra: str, error: ImportError) -> ModelError:
    """The error for a package that is not installed, with the extra that brings it."""
    return ModelError(f'{purpose} needs {error.name}, which is not installed: pip install "gem_fast[{extra}]"')


def warn_caller(message: str) -> None:
    """Warn at the first line that is not of this package, however deep it is called from there."""
    package, frame, depth = os.path.dirname(os.path.abspath(__file__)), sys._getframe(1), 2
    while frame.f_back is not None and os.path.abspath(frame.f_code.co_filename).startswith(package + os.sep):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, stacklevel=depth)
