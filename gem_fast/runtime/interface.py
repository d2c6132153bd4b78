"""What the graphs of an export take and give: by their role, for the model they are of."""

from collections.abc import Mapping
from dataclasses import dataclass

from .typed_json import EntryError, member, require

TYPES = ("float", "uint8", "int32", "int64")  # as ONNX and ONNX Runtime name them
Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class TensorFacts:
    """An input or output of a graph.

    Attributes:
        type: one of `TYPES`.
        shape: its dimensions; those that may vary by a name.
    """

    type: str
    shape: Shape

    def __post_init__(self) -> None:
        require(self.type in TYPES, "type", f"one of {', '.join(TYPES)}", self.type)
        for i, length in enumerate(self.shape):
            right = "1 or more, or a name"
            require(bool(length) and (isinstance(length, str) or length > 0), f"shape[{i}]", right, length)

    def __str__(self) -> str:
        return f"{self.type} [{', '.join(map(str, self.shape))}]"

    def fits(self, other: "TensorFacts") -> bool:
        """Whether the other is the same, whatever the names of its dimensions are."""
        return (self.type, _lengths(self.shape)) == (other.type, _lengths(other.shape))


Tensors = Mapping[str, TensorFacts]


def _lengths(shape: Shape) -> list[int | None]:
    return [None if isinstance(length, str) else length for length in shape]


def check_tensors(wanted: Tensors, found: Tensors, entry: str) -> None:
    """EntryError unless the tensors found are those that are wanted, whatever the names of their dimensions."""
    for name in [*wanted, *found]:
        if name not in found:
            raise EntryError(member(entry, name), f"is missing; it must be {wanted[name]}")
        if name not in wanted:
            raise EntryError(member(entry, name), f"is unknown; known are {', '.join(wanted) or 'none'}")
        if not wanted[name].fits(found[name]):
            raise EntryError(member(entry, name), f"must be {wanted[name]}, got {found[name]}")


def image_encoder(
    embed_dim: int,
    patch: int,
    size: tuple[int, int] | None,
    *,
    original: bool,
    with_preprocess: bool,
    feature_surgery: bool = False,
) -> tuple[Tensors, Tensors]:
    """Inputs and outputs of the image encoder for that height and width, or any multiple of the patch."""
    H, W = size or ("height", "width")
    h, w = (size[0] // patch, size[1] // patch) if size else ("h", "w")
    features = TensorFacts("float", ("batch", h, w, embed_dim))
    outputs = {"patch_features": features}
    if feature_surgery:
        outputs["image_embedding"] = TensorFacts("float", ("batch", embed_dim))
    if original:
        outputs["original_features"] = features
    return _images(H, W, with_preprocess), outputs


def segmenter(
    patch: int, size: tuple[int, int], *, classes: int, with_preprocess: bool, with_scores: bool
) -> tuple[Tensors, Tensors]:
    """Inputs and outputs of a graph for a fixed vocabulary."""
    outputs = {"labels": TensorFacts("int32", ("batch", *size)), "confidence": TensorFacts("float", ("batch", *size))}
    if with_scores:
        outputs["scores"] = TensorFacts("float", ("batch", classes, size[0] // patch, size[1] // patch))
    return _images(*size, with_preprocess), outputs


def _images(height: int | str, width: int | str, with_preprocess: bool) -> Tensors:
    """What a graph takes for images of that height and width, or of any that it resizes to them."""
    if with_preprocess:
        return {"image": TensorFacts("uint8", ("batch", "image_height", "image_width", 3))}
    return {"pixels": TensorFacts("float", ("batch", 3, height, width))}


def head_and_text(embed_dim: int, feature_surgery: bool = False) -> dict[str, tuple[Tensors, Tensors]]:
    """Inputs and outputs of the graphs of every other role."""
    image = {"image_embedding": TensorFacts("float", ("batch", embed_dim))} if feature_surgery else {}
    cosines = {"cosines": TensorFacts("float", ("batch", "classes", "h", "w"))}
    heatmaps = {"heatmaps": TensorFacts("float", ("batch", "classes", "height", "width"))}
    pixels = ("batch", "height", "width")
    decoded = {"labels": TensorFacts("int32", pixels), "confidence": TensorFacts("float", pixels)}
    embeddings = {"text_embeddings": TensorFacts("float", ("texts", embed_dim))}
    scored = {
        "patch_features": TensorFacts("float", ("batch", "h", "w", embed_dim)),
        **embeddings,
        "synonyms": TensorFacts("int64", ("classes", "most")),
    }
    size = {"output_size": TensorFacts("int64", (2,))}
    settings = {name: TensorFacts("float", ()) for name in ("logit_scale", "threshold")}
    return {
        "text_encoder": ({"token_ids": TensorFacts("int64", ("texts", "length"))}, embeddings),
        "cosines": (scored, cosines),
        "heatmaps": (cosines | size, heatmaps),
        "labels": (cosines | size | settings, decoded),
        "head": (scored | image | size | settings, cosines | heatmaps | decoded),
    }
