"""Exported folders that several tests of the runtime share."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from gem_fast.export import ExportOptions, export_onnx

import gem_fast

_FOLDERS: list[TemporaryDirectory] = []  # until the process ends


@cache
def engine():
    """gem-tiny in torch."""
    return gem_fast.load("gem-tiny")


@cache
def exported(*sizes, **options):
    """The folder of gem-tiny exported with those sizes, by default its own, 96×96; not to be changed."""
    _FOLDERS.append(TemporaryDirectory())
    folder = Path(_FOLDERS[-1].name) / "exported"
    export_onnx(engine(), folder, ExportOptions(sizes=sizes, check=False, **options))
    return folder
