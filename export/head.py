"""What comes after the encoders, as ONNX graphs: cosines, heat maps, labels and confidences.

ONNX Runtime computes all outputs of a graph whichever are asked for, so each step also is a graph of its own.
"""

import numpy as np
from onnx import TensorProto

from .builder import GraphBuilder
from .resampling import bilinear_matrix

# Elements of the scores of one step's pixels, as in the engine's decoder: [rows, W, classes] of a batch.
_STEP_ELEMENTS = 1 << 19
_FLOAT, _INT32, _INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
_COSINES: list[int | str] = ["batch", "classes", "h", "w"]
_PIXELS: list[int | str] = ["batch", "height", "width"]


def write_head(graph: GraphBuilder, step: str, embed_dim: int, feature_surgery: bool = False) -> None:
    """Add inputs, nodes and outputs of a step to the graph, which is empty.

    - `"cosines"`: `patch_features` `[batch, h, w, E]` and `text_embeddings` `[texts, E]` to `cosines`
      `[batch, classes, h, w]`. The input `synonyms`, int64 `[classes, most]`, names for each class the rows of its
      texts, repeated up to the longest, and a class's cosine is the largest of theirs; with `[[-1]]` each text is a
      class.
    - `"heatmaps"`: `cosines` and `output_size` (int64 `[2]`, height and width) to `heatmaps`
      `[batch, classes, height, width]` in 0..1, each stretched by itself.
    - `"labels"`: `cosines`, `output_size`, and the scalars `logit_scale` and `threshold`, to `labels`, int32, and
      `confidence` `[batch, height, width]`. Nothing of size classes × height × width is held.
    - `"head"`: all of them from patch features and text embeddings. With feature surgery it takes `image_embedding`
      `[batch, E]` too, and `cosines` are CLIP Surgery's scores; those of a single class are its cosines, for texts
      that are the difference of two embeddings.

    No input has a default: most runtimes know none, and tools leave such inputs away.
    """
    if step in ("head", "cosines"):
        features = graph.input("patch_features", _FLOAT, ["batch", "h", "w", embed_dim])
        texts = graph.input("text_embeddings", _FLOAT, ["texts", embed_dim])
    else:
        cosines = graph.input("cosines", _FLOAT, _COSINES)
    if step != "cosines":
        size = graph.input("output_size", _INT64, [2])
    if step in ("head", "cosines"):
        synonyms = graph.input("synonyms", _INT64, ["classes", "most"])
        words = graph.op("MatMul", features, graph.op("Transpose", texts, perm=[1, 0]))  # [B, h, w, texts]
        given = _given(graph, synonyms)
        if feature_surgery and step == "head":
            image = graph.input("image_embedding", _FLOAT, ["batch", embed_dim])
            alone = graph.op("Equal", _classes(graph, texts, synonyms, given), graph.constant([1]))
            words = graph.op("Where", alone, words, surgery(graph, words, image, texts))
        cosines = of_classes(graph, words, synonyms, given)
        graph.output("cosines", cosines, _FLOAT, _COSINES)
    if step in ("head", "heatmaps"):
        maps = heatmaps(graph, cosines, *_resampling(graph, cosines, size))
        graph.output("heatmaps", maps, _FLOAT, ["batch", "classes", "height", "width"])
    if step in ("head", "labels"):
        scale = graph.input("logit_scale", _FLOAT, [])
        least = graph.input("threshold", _FLOAT, [])
        labels, confidence = decode(graph, graph.op("Mul", cosines, scale), *_resampling(graph, cosines, size), least)
        graph.output("labels", labels, _INT32, _PIXELS)
        graph.output("confidence", confidence, _FLOAT, _PIXELS)


def surgery(graph: GraphBuilder, words: str, image: str, texts: str) -> str:
    """Cosines of words `[B, h, w, texts]` to CLIP Surgery's scores of them, as `gem_fast.scores.surgery_scores`."""
    op, constant = graph.op, graph.constant
    alike = op("MatMul", image, op("Transpose", texts, perm=[1, 0]))  # [B, texts]
    shares = op("Softmax", op("Mul", alike, graph.scalar(2.0)), axis=1)
    weights = op("Mul", shares, graph.real(op("Shape", texts, start=0, end=1)))
    weighted = op("Mul", words, op("Unsqueeze", weights, constant([1, 2])))
    return op("Sub", weighted, op("ReduceMean", weighted, constant([3]), keepdims=1))


def _given(graph: GraphBuilder, synonyms: str) -> str:
    """Whether the synonyms name rows, or each text is a class."""
    return graph.op("GreaterOrEqual", graph.op("ReduceMin", synonyms, keepdims=0), graph.constant(0))


def _classes(graph: GraphBuilder, texts: str, synonyms: str, given: str) -> str:
    """The number of classes, int64 `[1]`."""
    grouped, every = (graph.op("Shape", each, start=0, end=1) for each in (synonyms, texts))
    return graph.op("Where", given, grouped, every)


def of_classes(graph: GraphBuilder, words: str, synonyms: str, given: str) -> str:
    """Scores of words `[B, h, w, texts]` to those of classes `[B, classes, h, w]`, the maximum over the synonyms."""
    op = graph.op
    grouped, plain = graph.body(), graph.body()
    best = grouped.op("ReduceMax", grouped.op("Gather", words, synonyms, axis=3), grouped.constant([4]), keepdims=0)
    grouped.output("largest", best, _FLOAT, ["batch", "h", "w", "classes"])
    plain.output("every", words, _FLOAT, ["batch", "h", "w", "classes"])
    scores = op("If", given, then_branch=grouped.finished("synonyms"), else_branch=plain.finished("texts"))
    return op("Transpose", scores, perm=[0, 3, 1, 2])


def heatmaps(graph: GraphBuilder, cosines: str, rows: str, columns: str) -> str:
    """Bilinear upsampling, then min-max normalised; a map without any contrast is 0 everywhere."""
    op, constant = graph.op, graph.constant
    maps = op("MatMul", op("MatMul", rows, cosines), op("Transpose", columns, perm=[1, 0]))
    low, high = (op(kind, maps, constant([2, 3]), keepdims=1) for kind in ("ReduceMin", "ReduceMax"))
    contrast = op("Sub", high, low)
    flat = op("Equal", contrast, graph.scalar(0.0))
    return op("Div", op("Sub", maps, low), op("Where", flat, graph.scalar(1.0), contrast))


def decode(graph: GraphBuilder, logits: str, rows: str, columns: str, least: str) -> tuple[str, str]:
    """Labels and confidences `[B, H, W]` of logits `[B, classes, h, w]`, a few rows of pixels at a time."""
    op, constant = graph.op, graph.constant
    batch, classes, h, w = (op("Shape", logits, start=i, end=i + 1) for i in range(4))
    height, width = (op("Shape", matrix, start=0, end=1) for matrix in (rows, columns))
    a_row = op("Mul", op("Mul", batch, width), classes)
    count = op("Min", op("Max", op("Div", constant([_STEP_ELEMENTS]), a_row), constant([1])), height)
    steps = op("Div", op("Sub", op("Add", height, count), constant([1])), count)
    shape = op("Concat", batch, count, w, classes, axis=0)
    flat = op("Reshape", op("Transpose", logits, perm=[0, 2, 3, 1]), op("Concat", batch, h, constant([-1]), axis=0))

    step = graph.body()
    index = step.input("step", _INT64, [])
    goes_on = step.input("goes_on", TensorProto.BOOL, [])
    # The last step may repeat rows of the one before, so that all are of a size.
    first = step.op("Min", step.op("Mul", index, count), op("Sub", height, count))
    here = step.op("Slice", rows, first, step.op("Add", first, count), step.constant([0]))
    stripe = step.op("Reshape", step.op("MatMul", here, flat), shape)  # [B, rows, w, classes]
    tile = step.op("MatMul", columns, stripe)  # [B, rows, W, classes]
    confidence = step.op("ReduceMax", step.op("Softmax", tile, axis=-1), step.constant([-1]), keepdims=0)
    best = step.op("Add", step.op("ArgMax", tile, axis=-1, keepdims=0), step.constant(1))
    step.output("more", goes_on, TensorProto.BOOL, [])
    step.output("step_labels", step.op("Cast", best, to=_INT32), _INT32, ["batch", "rows", "width"])
    step.output("step_confidence", confidence, _FLOAT, ["batch", "rows", "width"])

    found = graph.ops("Loop", (op("Squeeze", steps), ""), 2, body=step.finished("rows"))  # [steps, B, rows, W] each
    whole = op("Mul", op("Sub", steps, constant([1])), count)
    labels, confidence = (_in_order(graph, each, whole, height) for each in found)
    # Not within the loop, where converters of types forget the graph's inputs.
    sure = op("GreaterOrEqual", confidence, least)
    return op("Where", sure, labels, constant(0, np.int32)), confidence


def _in_order(graph: GraphBuilder, found: str, whole: str, height: str) -> str:
    """`[steps, B, rows, W]` to `[B, H, W]`; of the last step only the rows after the `whole` ones before it are new."""
    op, constant = graph.op, graph.constant
    batch, width = (op("Shape", found, start=i, end=i + 1) for i in (1, 3))
    shape = op("Concat", batch, constant([-1]), width, axis=0)
    merged = op("Reshape", op("Transpose", found, perm=[1, 0, 2, 3]), shape)
    before = op("Slice", merged, constant([0]), whole, constant([1]))
    end = constant([np.iinfo(np.int64).max])
    return op("Concat", before, op("Slice", merged, op("Sub", whole, height), end, constant([1])), axis=1)


def _resampling(graph: GraphBuilder, cosines: str, size: str) -> tuple[str, str]:
    """The matrices of rows and columns that resample `[..., h, w]` to `output_size`."""
    h, w = (graph.op("Shape", cosines, start=i, end=i + 1) for i in (2, 3))
    height, width = graph.ops("Split", (size,), 2, axis=0, num_outputs=2)
    return bilinear_matrix(graph, h, height), bilinear_matrix(graph, w, width)
