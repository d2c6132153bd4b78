"""What can be chosen about a run over many files."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from ..outputs import OutputKind, wanted_kinds
from ..preprocess import ResizePolicy
from ..prompts import Prompts

_LEAST = {
    "batch_size": 1,
    "workers": 1,
    "processes": 1,
    "retries": 0,
    "max_errors": 0,
    "overlay_size": 0,
    "window": 1,
    "stride": 1,
}


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
        resume: go on with an earlier run in the output folder, which must have asked the same: keep what it finished,
            try again what failed, and do the rest, further inputs among it.
        overwrite: begin anew in the folder of an earlier run, whose files are removed.
        batch_size: images in one forward; those of one input size go together.
        workers: how many read and write beside the engine; None for one a core.
        processes: engines in processes of their own, on the model's devices in turn, or each on its share of the
            cores; None for one a device where there are several, which `load(device="cuda")` finds.
        timeout: seconds that reading or writing an image may take; None for any.
        retries: how often an image that can't be read is tried again.
        max_errors: stop when more images than this have failed; None for never.
        background, size, resize, threshold, logit_scale, templates, window, stride: as for `segment`.
    """

    overlays: bool = True
    overlay_format: str = "jpeg"
    overlay_size: int = 1600
    label_size: int | str | None = None
    heatmaps: bool = False
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
        if self.resume and self.overwrite:
            raise ValueError("resume keeps an earlier run and overwrite removes it: choose one")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be {least} or more, got {value}")
        if (isinstance(self.label_size, str) and self.label_size != "model") or self.label_size == 0:
            raise ValueError(f"label_size must be model or a positive number of pixels, got {self.label_size!r}")
        wanted_kinds(overlay=self.overlay_format, heatmaps=False)
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {self.timeout}")

    @property
    def kinds(self) -> tuple[OutputKind, ...]:
        """What is written of each image."""
        kinds = wanted_kinds(overlay=self.overlay_format if self.overlays else None, heatmaps=self.heatmaps)
        return tuple(kind for kind in kinds if not kind.once)


def parse_options(options: dict) -> BatchOptions:
    """Options by name; ValueError for one that there isn't."""
    known = [each.name for each in fields(BatchOptions)]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"unknown options {', '.join(unknown)}; known are {', '.join(known)}")
    return BatchOptions(**options)
