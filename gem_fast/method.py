"""What becomes of a vision transformer's last blocks: GEM and the methods that it is compared with, each a row of data.

Importing it needs no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .numbers import number, whole
from .options import LARGEST_FLOAT, LEAST_DISTANCE, GemOptions

_ADAPTIVE, _HEAD = "adaptive", "head"


@dataclass(frozen=True)
class Method:
    """What the last blocks compute in place of CLIP's own attention, for features of patches.

    With `y = ln_1(x)`, its projections q, k and v, and `A` the attention that `attention` names, a block gives
    `g = residual + out(A v)`, and then `g + mlp(ln_2(g))` where the method keeps the MLP.

    Attributes:
        name: as `gem_fast.methods()` and an export's manifest have it.
        blocks: how many of the last blocks are changed; 0 leaves CLIP as it is.
        beside: the changed blocks are a path of their own, which adds them up and reads the unchanged path's tokens.
            If not, they take the place of CLIP's, and read each other.
        attention: pairs of projections whose softmaxes are put together, such as `"qq+kk"`; empty where each token
            keeps its own values.
        average: divide by the number of pairs.
        iterations: how often a projection attends to itself before the values are assigned (GEM, Eq. 5).
        normalize: L2-normalise the projections.
        scale: multiplier of the logits: a number, `"head"` for `1/sqrt(D)`, or `"adaptive"` for GEM's inverse
            temperature (Eq. 4, from each image's token norms).
        residual: what the changed blocks give is added to their input: that of the first one beside, else of each.
        mlp: keep the MLP.
        distance: sigma, in patches, of the Gaussian that near patches have added to their logits (NACLIP), or None.
    """

    name: str = "own"
    blocks: int = 1
    beside: bool = False
    attention: str = ""
    average: bool = False
    iterations: int = 0
    normalize: bool = False
    scale: float | str = _HEAD
    residual: bool = True
    mlp: bool = False
    distance: float | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable():
            raise ValueError(f"name must be a name in printable characters, got {self.name!r}")
        for name in ("blocks", "iterations"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 0))
        if self.attention:
            from gem_fast.kernels.attention.pairs import parse_pairs

            parse_pairs(self.attention)
        if isinstance(self.scale, str) and self.scale not in (_ADAPTIVE, _HEAD):
            raise ValueError(f"scale must be a positive number, {_HEAD!r} or {_ADAPTIVE!r}, got {self.scale!r}")
        if not isinstance(self.scale, str):
            scale = number("scale", self.scale, "positive in float32", lambda x: 0 < x <= LARGEST_FLOAT)
            object.__setattr__(self, "scale", scale)
        if self.distance is not None:
            right = "positive in float32, with its square, or None"
            distance = number("distance", self.distance, right, lambda x: LEAST_DISTANCE <= x <= LARGEST_FLOAT)
            object.__setattr__(self, "distance", distance)
        if self.refines and self.distance is not None:
            raise ValueError("distance goes with projections as they are: leave out iterations and normalize")
        if self.refines and any(a != b for a, b in self.pairs):
            raise ValueError(f"iterations and normalize go with pairs of one projection, got {self.attention!r}")

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Of the projections, such as `(("q", "q"), ("k", "k"))`."""
        return tuple((pair[0], pair[1]) for pair in self.attention.split("+")) if self.attention else ()

    @property
    def projections(self) -> str:
        """The letter of each pair of one projection with itself."""
        return "".join(a for a, b in self.pairs if a == b)

    @property
    def wanted(self) -> str:
        """Those of q, k and v that a changed block reads."""
        return "".join(letter for letter in "qkv" if letter == "v" or letter in self.attention)

    @property
    def refines(self) -> bool:
        """Whether projections are changed before the values are assigned, as GEM does."""
        return self.normalize or self.iterations > 0

    @property
    def adaptive(self) -> bool:
        """Whether the scale follows each image's token norms."""
        return self.scale == _ADAPTIVE

    def scale_of(self, head_width: int) -> float:
        """The multiplier of the logits, where it is not adaptive."""
        return head_width**-0.5 if isinstance(self.scale, str) else self.scale


def gem(options: GemOptions) -> Method:
    """GEM with its options."""
    return Method(
        name="gem",
        blocks=options.gem_blocks,
        beside=True,
        attention="+".join(letter * 2 for letter in options.projections),
        average=True,
        iterations=options.iterations,
        normalize=options.normalize,
        scale=_ADAPTIVE if options.inverse_temperature is None else options.inverse_temperature,
    )


def as_method(chosen: Method | GemOptions | None) -> Method:
    """A method as it is, GEM's options as the method that they make, and None as GEM."""
    return chosen if isinstance(chosen, Method) else gem(chosen or GemOptions())


_ROWS = (
    Method("clip", blocks=0),
    Method("maskclip", mlp=True),
    Method("maskclip-no-mlp"),
    Method("maskclip-bare", residual=False),
    Method("clip-surgery", blocks=6, beside=True, attention="vv"),
    Method("sclip", attention="qq+kk", mlp=True),
    Method("clearclip", beside=True, attention="qq", residual=False),
    Method("naclip", attention="kk", residual=False, distance=5.0),
    gem(GemOptions()),
)


def methods() -> Mapping[str, Method]:
    """The methods by the names that `load` takes."""
    return {row.name: row for row in _ROWS}


def find_method(method: str | Method, gem_options: GemOptions, changes: Mapping[str, object]) -> Method:
    """The method of that name, or the one given.

    Args:
        method: a name, or a method of the caller's own.
        gem_options: GEM's options of the model.
        changes: fields of `GemOptions` that the caller chose; they go with GEM alone.

    Raises:
        ValueError: there is none of that name, or GEM's options were given to another one.
    """
    known = methods()
    if isinstance(method, str) and method not in known:
        raise ValueError(f"no method is called {method!r}; the methods are {', '.join(known)}")
    if method == "gem":
        return gem(replace(gem_options, **changes))  # type: ignore[arg-type]
    if changes:
        name = method if isinstance(method, str) else method.name
        raise ValueError(f"{', '.join(changes)} can change gem alone, and the method is {name}; give an own Method")
    return known[method] if isinstance(method, str) else method
