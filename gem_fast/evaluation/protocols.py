"""How a data set is evaluated: sizes, windows, words, scales and thresholds, by name. Needs no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..preprocess import ResizePolicy
from .datasets import DATA, POINTS, SCENES
from .labelled import Dataset, class_list
from .points import MAP_THRESHOLD

_WITH_BACKGROUND = ("voc21", "context60", "coco-object", SCENES)
USUAL = "gem"


@dataclass(frozen=True)
class Protocol:
    """The steps from a photograph to its labels.

    Attributes:
        name, source: what it is called, and whose it is.
        size: side of the input, as `resize` has it; None for the model's.
        resize: what the size is: the `"shorter"` side, both (`"squash"`), or nothing (`"exact"`, the photograph's own
            size); None for the model's.
        window, stride: sliding windows, or None.
        templates: of the prompts, by name.
        logit_scale: multiplier of the cosine before the softmax; None for the model's.
        threshold: probability below which a pixel is background, where the set has one; None for the model's.
        area_threshold: classes with no more than this share of the pixels that are no background lose them.
        synonyms: each word is a class of its own in the softmax, and stands for its class; or the first word alone.
        background_words: all words of the background compete, or the one that is named here; or none does, and
            background is the threshold's alone.
        differently: what is otherwise for some sets.
        notes: what a reader has to know.
    """

    name: str
    source: str
    size: int | None = None
    resize: ResizePolicy | None = None
    window: int | None = None
    stride: int | None = None
    templates: str = "photo"
    logit_scale: float | None = None
    threshold: float | None = None
    area_threshold: float | None = None
    synonyms: bool = False
    background_words: bool | str = False
    differently: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of(self, data: str | None, **chosen: Any) -> "Protocol":
        """As it is for a data set, with what the user chose; ValueError for a stride without windows."""
        changes = {**self.differently.get(data or "", {}), **{k: v for k, v in chosen.items() if v is not None}}
        steps = replace(self, differently={}, **changes)
        if steps.window:
            return steps
        if chosen.get("stride") is not None:
            raise ValueError("stride is that of windows: give window, too")
        return replace(steps, window=None, stride=None)

    def settings(self) -> dict[str, Any]:
        """The steps by name."""
        return {name: getattr(self, name) for name in STEPS}


STEPS = tuple(each.name for each in fields(Protocol) if each.name not in ("name", "source", "differently", "notes"))
POINT_STEPS = ("size", "resize", "window", "stride", "templates")  # those that count where points are measured
PROTOCOLS = {
    "gem": Protocol(
        "gem",
        "GEM (CVPR 2024), section 4.1",
        size=448,
        resize="shorter",
        logit_scale=100.0,
        threshold=0.85,
        differently={SCENES: {"size": None}},
        notes=(
            "mIoU over all classes of the set, background among them where it has one, at the annotation's own size",
            "the paper's Table 2 has GEM's VOC figure at two iterations, 46.2; one gives 45.5 and none 45.1 (Table 4), "
            "while its Context figure, 32.6, is of one: --sweep iterations=0,1,2 measures all three",
            "the paper names no softmax scale, no class words, and not whether VOC counts the background: 100 is "
            "CLIP's, the words are this project's, and voc21 counts it where voc20 does not",
            "sides are rounded to multiples of the patch; scores are upsampled once, to the size of the annotation",
        ),
    ),
    "sclip": Protocol(
        "sclip",
        "SCLIP (ECCV 2024), its published settings",
        size=336,
        resize="shorter",
        window=224,
        stride=112,
        templates="imagenet",
        logit_scale=40.0,
        threshold=0.0,
        synonyms=True,
        background_words=True,
        differently={
            "voc21": {"logit_scale": 65.0, "threshold": 0.1, "area_threshold": 0.1},
            "context60": {"logit_scale": 50.0, "threshold": 0.1, "background_words": "background"},
            "coco-object": {"logit_scale": 50.0, "threshold": 0.1},
            "coco-stuff": {"size": 448},
            "cityscapes": {"size": 560},
        },
        notes=(
            "a class's probability is the greatest of its words' in a softmax over all words",
            "context60's background is the word background alone",
            "sides and windows are rounded to multiples of the patch, and windows' scores are upsampled once, to the "
            "size of the annotation, where mmsegmentation keeps odd sides and upsamples twice",
            "no refinement (PAMR), as in its default",
        ),
    ),
    "own": Protocol(
        "own",
        "the model's own defaults",
        notes=("size, scale and threshold are those of gem-fast models NAME",),
    ),
}


def words_of(dataset: Dataset, steps: Protocol) -> list[tuple[int, str]]:
    """Each word that competes, with the label that it stands for; ValueError if it is the only one."""
    found = []
    for label, each in enumerate(dataset.classes):
        words = each.synonyms if steps.synonyms else each.synonyms[:1]
        if label == 0 and dataset.background:
            chosen = steps.background_words
            words = (chosen,) if isinstance(chosen, str) else each.synonyms if chosen else ()
        found += [(label, word) for word in words]
    if len(found) < 2:
        raise ValueError(f"{dataset.name} has a single class: nothing competes with it; name two or more")
    return found


def explain(name: str) -> Iterator[str]:
    """A protocol in lines: its steps, set by set."""
    protocol = PROTOCOLS[name]
    yield f"{name}: {protocol.source}"
    for data in DATA:
        steps = protocol.of(data)
        shown = {step: value for step, value in steps.settings().items() if value is not None}
        if data == POINTS:
            shown = {step: shown[step] for step in POINT_STEPS if step in shown} | {"map_threshold": MAP_THRESHOLD}
        elif data not in _WITH_BACKGROUND:
            shown.pop("threshold", None)
        shown.setdefault("size", "the model's")
        yield f"  {data}: " + ", ".join(f"{step} {value}" for step, value in shown.items())
    for note in protocol.notes:
        yield f"  - {note}"
    yield "  classes, each with its words; only the first counts without synonyms:"
    for listed in ("voc", "context", "ade20k", "coco-object", "coco-stuff", "cityscapes", "background"):
        words = "; ".join(", ".join(each.synonyms) for each in class_list(listed))
        yield f"  {listed}: {words}"
