"""What `gem-fast segment` was asked to do, wherever it is done."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..prompts import read_prompt_file

if TYPE_CHECKING:
    from gem_fast.segmenter import Segmenter


@dataclass(frozen=True)
class Job:
    """Images, words, and how to get at an engine.

    Attributes:
        load: gives the engine.
        images: files, folders, patterns and the like.
        prompts, prompts_file: the classes.
        out: the output folder.
        options: fields of `BatchOptions`.
    """

    load: "Callable[[], Segmenter]"
    images: list[str]
    prompts: list[str]
    prompts_file: Path | None
    out: Path
    options: dict[str, Any]

    def classes(self) -> dict[str, list[str]]:
        """The words of each class; ValueError if there is none, OSError if their file can't be read."""
        classes: dict[str, list[str]] = {name: [name] for name in self.prompts}
        if self.prompts_file:
            classes.update(read_prompt_file(self.prompts_file))
        if not classes:
            raise ValueError("name at least one class with --prompt or --prompts-file")
        return classes
