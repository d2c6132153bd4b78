"""What can be chosen about the GEM path and about scores and labels. Importing it needs no torch."""

from dataclasses import dataclass

from .numbers import number, whole

LARGEST_FLOAT = 3.4e38  # of float32, in which scales are applied
LEAST_DISTANCE = 1e-18  # of which float32 holds the square


@dataclass(frozen=True)
class GemOptions:
    """The GEM path: which blocks it covers and how its self-self attention works.

    Attributes:
        gem_blocks: number of last blocks with a GEM path. The authors' `gem_depth=7` changes 6 blocks.
        iterations: self-self attention steps before the values are assigned (Eq. 5 of the paper), 0 or more.
        inverse_temperature: `1/τ`, or None for the paper's adaptive one (Eq. 4, from each image's token norms).
        projections: which of q, k and v are ensembled (Eq. 7).
        normalize: L2-normalise the projections. Off is what CLIP Surgery's value-value attention needs, with
            `projections="v"`, `iterations=0` and `inverse_temperature=head_width ** -0.5`.
    """

    gem_blocks: int = 6
    iterations: int = 1
    inverse_temperature: float | None = None
    projections: str = "qkv"
    normalize: bool = True

    def __post_init__(self) -> None:
        from gem_fast.kernels.attention.self_self import indices_of

        for name, least in (("gem_blocks", 1), ("iterations", 0)):
            object.__setattr__(self, name, whole(name, getattr(self, name), least))
        if (value := self.inverse_temperature) is not None:
            value = number(
                "inverse_temperature", value, "positive in float32 or None", lambda x: 0 < x <= LARGEST_FLOAT
            )
            object.__setattr__(self, "inverse_temperature", value)
        indices_of(self.projections)


@dataclass(frozen=True)
class Defaults:
    """What a model brings for images and labels when the caller names nothing.

    Attributes:
        size: side of the input in pixels, as `preprocess.input_size` reads it with the resize policy.
        logit_scale: multiplier of the cosine before the softmax over classes.
        threshold: softmax confidence below which a pixel is background (the paper's 0.85).
        resize: the usual resize policy of its images.
        heatmap_threshold: the same for a single prompt, on its min-max heat map (the paper's 0.5), since a softmax
            over one class is 1 everywhere.
    """

    size: int = 448
    logit_scale: float = 100.0
    threshold: float = 0.85
    heatmap_threshold: float = 0.5
    resize: str = "shorter"
