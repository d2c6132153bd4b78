"""What meets what in a table: each model with each method on each data set."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..method import methods
from .datasets import SCENES
from .labelled import Dataset
from .loop import Evaluation
from .open_images import PointSet
from .paper import paper_figure
from .point_run import evaluate_points
from .protocols import Protocol, words_of
from .run import evaluate_variants

if TYPE_CHECKING:
    from ..model import GemModel

_PREFIXES = ("hf-hub:", "local-dir:")
_ALL = "all"


@dataclass(frozen=True)
class Case:
    """A model with a method on a data set.

    Attributes:
        model, data, steps: what `evaluate` takes.
        method: its name.
        variants: of a sweep, or a single one without a name.
        paper: the paper's figure in percent, if it has one.
    """

    model: "GemModel"
    data: Dataset | PointSet
    steps: Protocol
    method: str
    variants: tuple[str, ...] = ("",)
    paper: float | None = None

    def evaluate(self, **running: Any) -> list[Evaluation]:
        """An evaluation for each variant; arguments and errors as in `evaluate_variants`."""
        running["method"] = self.method
        if isinstance(self.data, PointSet):
            return [evaluate_points(self.model, self.data, self.steps, **running)]
        return evaluate_variants(self.model, self.data, self.steps, variants=self.variants, **running)


@dataclass(frozen=True)
class Plan:
    """Which cases there are: ValueError, before one is measured, for what can be told of sets, names and settings.

    Attributes:
        sets: data sets, each with its protocol's steps.
        models: names, or `NAME:TAG` with the tag of weights.
        methods: names, or `"all"`; none for all of them where there are scenes alone and no sweep, else for GEM.
        sweep: settings such as `"iterations=0,1,2"`, whose combinations are measured at once.
        loading: what `gem_fast.load` takes besides.
    """

    sets: tuple[tuple[Dataset | PointSet, Protocol], ...]
    models: tuple[str, ...] = ("gem-tiny",)
    methods: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()
    loading: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sweep and any(isinstance(data, PointSet) for data, _ in self.sets):
            raise ValueError("a sweep is of label maps; measure points with one setting at a time")
        if unknown := [each for each in self.methods if each not in (*methods(), _ALL)]:
            known = ", ".join(methods())
            raise ValueError(f"no method is called {unknown[0]!r}; the methods are {known}, and {_ALL} takes each")
        for data, steps in self.sets:
            if isinstance(data, Dataset):
                words_of(data, steps)
        self._check_models()

    def _check_models(self) -> None:
        """Raise ValueError for a name that there is none of, or a sweep that one of the methods can't have."""
        from ..towers.checkpoint import check_asked

        for name in self.models:
            check_asked(*split(name), self.loading.get("weights"), self.loading.get("tokenizer"))
        if self.sweep:
            from .sweep import parse_sweep

            for method in self.chosen_methods():
                parse_sweep(self.sweep, methods()[method])

    def chosen_methods(self) -> tuple[str, ...]:
        scenes_alone = all(data.kind == SCENES for data, _ in self.sets)
        usual = (_ALL,) if scenes_alone and not self.sweep else ("gem",)
        chosen = self.methods or usual
        return tuple(methods()) if _ALL in chosen else chosen

    def cases(self) -> Iterator[Case]:
        """One after another, each with its model loaded.

        Raises:
            ValueError: a model can't be loaded.
        """
        import gem_fast

        for name in self.models:
            model, tag = split(name)
            for method in self.chosen_methods():
                engine = gem_fast.load(model, tag, method=method, **self.loading)
                variants: tuple[str, ...] = ("",)
                if self.sweep:
                    from .sweep import swept

                    engine = swept(engine, self.sweep)
                    variants = tuple(each.name for each in engine.variants)
                for data, steps in self.sets:
                    figure = None if self.sweep else paper_figure(data.kind, model, tag, method)
                    yield Case(engine, data, steps, method, variants, figure)


def split(name: str) -> tuple[str, str | None]:
    """`NAME:TAG` to both."""
    if name.startswith(_PREFIXES) or ":" not in name or Path(name).exists():
        return name, None
    model, tag = name.rsplit(":", 1)
    return model, tag
