"""What can be chosen about a run over many files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ..numbers import number, whole
from ..outputs import HEATMAPS, OutputKind, wanted_kinds
from ..preprocess import ResizePolicy
from ..prompts import Prompts
from .shard_formats import FORMATS, SHARD_FORMATS, ShardFormat

_LEAST = {
    "batch_size": 1,
    "size": 1,
    "workers": 1,
    "processes": 1,
    "retries": 0,
    "max_errors": 0,
    "overlay_size": 0,
    "window": 1,
    "stride": 1,
    "shard_size": 1,
}
_MOST_IMAGES = 1 << 16  # of a batch
_FLAGS = ("overlays", "heatmaps", "resume", "overwrite")
_PART = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True)
class Part:
    """One of several runs that share the inputs: every `of`-th of them, from the `number`-th (from 1 on)."""

    number: int = 1
    of: int = 1

    @property
    def folder(self) -> str:
        """Its folder in the output folder."""
        return f"part-{self.number:0{len(str(self.of))}}-of-{self.of}" if self.of > 1 else ""

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


WHOLE = Part()


def parse_part(text: str) -> Part:
    """`3/16`, the third of sixteen.

    Raises:
        ValueError: it is not of that form, or there is no such part.
    """
    found = _PART.fullmatch(text) if isinstance(text, str) else None
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"part must be one such as 3/16, from 1/16 to 16/16, got {text!r}")
    return Part(int(found[1]), int(found[2]))


@dataclass(frozen=True)
class BatchOptions:
    """How many files are segmented.

    Attributes:
        overlays: off leaves out the overlays.
        overlay_format: `"jpeg"`, `"png"` or `"webp"`.
        overlay_size: longest side of an overlay in pixels; larger photos are drawn smaller. 0 for their own size.
        label_size: size of labels and heat maps: None for the photo's, `"model"` for that of the model's input, or
            their shorter side in pixels.
        heatmaps: also write the heat maps, as `.npz`.
        format: `"files"`, or shards: `"tar"`, `"parquet"` (labels and heat maps) or `"coco"` (masks of the labels).
        shard_size: images in a shard.
        part: `"3/16"`: that sixteenth of the inputs, into a folder `part-03-of-16` of the output folder.
        resume: go on with an earlier run in the output folder, which must have asked the same: keep what it finished,
            try again what failed, and do the rest, further inputs among it.
        overwrite: begin anew in the folder of an earlier run, whose files are removed.
        batch_size: images in one forward; those of one input size go together.
        workers: how many read and write beside the engine; None for one a core.
        processes: engines in processes of their own, on the model's devices in turn, or each on its share of the
            cores; None for one a device where there are several, which `load(device="cuda")` finds.
        timeout: seconds that reading or writing an image may take, or encoding it in a process of its own, where a
            batch may always take 300; None for any.
        retries: how often an image that can't be read is tried again.
        max_errors: stop when more images than this have failed; None for never.
        background, size, resize, threshold, logit_scale, templates, window, stride: as for `segment`.
    """

    overlays: bool = True
    overlay_format: str = "jpeg"
    overlay_size: int = 1600
    label_size: int | str | None = None
    heatmaps: bool = False
    format: str = "files"
    shard_size: int = 1000
    part: str | None = None
    resume: bool = False
    overwrite: bool = False
    batch_size: int = 8
    workers: int | None = None
    processes: int | None = None
    timeout: float | None = 300.0
    retries: int = 0
    max_errors: int | None = None
    background: Prompts = ()
    size: int | None = None
    resize: ResizePolicy | None = None
    threshold: float | None = None
    logit_scale: float | None = None
    templates: str | Sequence[str] = "photo"
    window: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.resume and self.overwrite:
            raise ValueError("resume keeps an earlier run and overwrite removes it: choose one")
        for name, least in _LEAST.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole(name, value, least))
        if self.batch_size > _MOST_IMAGES:
            raise ValueError(f"batch_size must be at most {_MOST_IMAGES:,}, got {self.batch_size:,}")
        if self.label_size is not None and self.label_size != "model":
            object.__setattr__(self, "label_size", _side(self.label_size))
        if self.format not in FORMATS:
            raise ValueError(f"format must be {', '.join(FORMATS)}, got {self.format!r}")
        if self.shards:
            self.shards.check()
            if self.heatmaps and HEATMAPS not in self.kinds:
                raise ValueError(f"format {self.format} has no place for heat maps: take another, or no heatmaps")
        if self.part is not None:
            parse_part(self.part)
        wanted_kinds(overlay=self.overlay_format, heatmaps=False)
        if self.timeout is not None:
            seconds = number("timeout", self.timeout, "a positive number of seconds", lambda x: x > 0)
            object.__setattr__(self, "timeout", seconds)

    @property
    def kinds(self) -> tuple[OutputKind, ...]:
        """What is written of each image."""
        kinds = wanted_kinds(overlay=self.overlay_format if self.overlays else None, heatmaps=self.heatmaps)
        kinds = tuple(kind for kind in kinds if not kind.once)
        return self.shards.kinds(kinds) if self.shards else kinds

    @property
    def share(self) -> Part:
        """Of the inputs."""
        return parse_part(self.part) if self.part else WHOLE

    def folder(self, out: Path) -> Path:
        """Where in an output folder this run writes."""
        return out / self.share.folder

    @property
    def shards(self) -> ShardFormat | None:
        """The format of shards, or None for files."""
        return SHARD_FORMATS.get(self.format)


def _side(label_size: object) -> int:
    right = "model or a positive number of pixels"
    side: int = number("label_size", label_size, right, lambda x: isinstance(x, int) and x >= 1)
    return side


def parse_options(options: dict) -> BatchOptions:
    """Options by name; ValueError for one that there isn't."""
    known = [each.name for each in fields(BatchOptions)]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"unknown options {', '.join(unknown)}; known are {', '.join(known)}")
    return BatchOptions(**options)
