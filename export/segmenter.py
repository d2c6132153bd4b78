"""A graph for a fixed vocabulary: images in, labels out, with the words' embeddings and the settings baked in."""

import numpy as np
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

from gem_fast.query import Query
from gem_fast.towers.vit import GemVisionTransformer

from .builder import GraphBuilder
from .head import heatmaps, surgery
from .image_encoder import ImageEncoderWriter
from .image_head import image_embedding, patch_embeddings
from .layers import Layers


def write_segmenter(
    layers: Layers,
    vision: GemVisionTransformer,
    size: tuple[int, int],
    query: Query,
    pixels: str,
    *,
    with_scores: bool,
    feature_surgery: bool = False,
) -> None:
    """Add nodes and outputs to the layers' graph: no loop, no branch, and no shape but the batch is open.

    - `labels` int32 `[batch, H, W]`: 0 for background, and i + 1 for class i
    - `confidence` float32 `[batch, H, W]`, by softmax over all classes; of a class alone its heat map
    - `scores` float32 `[batch, classes, h, w]`: those of the classes that have labels, where they are asked for

    What it decodes, `patch_features` and with feature surgery `image_embedding`, are values of these names inside.

    Args:
        layers: the graph, with what makes `pixels`.
        vision: the model, in float32 on the CPU.
        size: height and width of the pixels, and of labels and confidences.
        query: classes, background and settings.
        pixels: normalised pixels `[B, 3, H, W]`.
        with_scores: give `scores`.
        feature_surgery: score by CLIP Surgery's feature surgery; a query of one class has it in its words.
    """
    graph, op, constant = layers.graph, layers.graph.op, layers.graph.constant
    weighted = feature_surgery and len(query.groups) > 1
    tokens, unchanged, grid = ImageEncoderWriter(layers, vision).forward(pixels, size, original=weighted)
    words = graph.weight("words", query.words.float())
    patches = graph.named("patch_features", patch_embeddings(layers, vision, tokens, grid))
    cosines = op("MatMul", patches, op("Transpose", words, perm=[1, 0]))
    if unchanged:
        image = graph.named("image_embedding", image_embedding(layers, vision, unchanged))
        cosines = surgery(graph, cosines, image, words)
    scores = _of_classes(graph, cosines, query.groups)  # [B, P, h, w]
    grid_size = [side // vision.config.patch_size for side in size]
    rows, columns = (_upsampling(graph, *lengths) for lengths in zip(grid_size, size, strict=True))
    named = len(query.classes)
    if len(query.groups) == 1:
        confidence = op("Squeeze", heatmaps(graph, scores, rows, columns), constant([1]))
        best = constant(1, np.int32)
    else:
        confidence, best = _decode(graph, op("Mul", scores, graph.scalar(query.logit_scale)), rows, columns)
        if query.background:
            best = op("Where", op("Greater", best, constant(named, np.int32)), constant(0, np.int32), best)
    sure = op("GreaterOrEqual", confidence, graph.scalar(query.threshold))
    shape: list[int | str] = ["batch", *size]
    graph.output("labels", op("Where", sure, best, constant(0, np.int32)), TensorProto.INT32, shape)
    graph.output("confidence", confidence, TensorProto.FLOAT, shape)
    if with_scores:
        own = op("Slice", scores, constant([0]), constant([named]), constant([1])) if query.background else scores
        graph.output("scores", own, TensorProto.FLOAT, ["batch", named, *grid_size])


def _of_classes(graph: GraphBuilder, scores: str, groups: list[int]) -> str:
    """Scores of words `[B, h, w, T]` to those of classes `[B, P, h, w]`, given the number of words of each."""
    op, constant = graph.op, graph.constant
    if max(groups) > 1:
        start, axis, parts = 0, constant([3]), []
        for count in groups:
            own = op("Slice", scores, constant([start]), constant([start + count]), axis)
            parts.append(op("ReduceMax", own, axis))
            start += count
        scores = op("Concat", *parts, axis=3)
    return op("Transpose", scores, perm=[0, 3, 1, 2])


def _decode(graph: GraphBuilder, logits: str, rows: str, columns: str) -> tuple[str, str]:
    """Confidences float32 and the likeliest class, counted from 1, int32: `[B, H, W]` of logits `[B, P, h, w]`."""
    op, constant = graph.op, graph.constant
    maps = op("MatMul", op("MatMul", rows, logits), op("Transpose", columns, perm=[1, 0]))  # [B, P, H, W]
    confidence = op("ReduceMax", op("Softmax", maps, axis=1), constant([1]), keepdims=0)
    index = op("Cast", op("ArgMax", maps, axis=1, keepdims=0), to=TensorProto.INT32)
    return confidence, op("Add", index, constant(1, np.int32))


def _upsampling(graph: GraphBuilder, inputs: int, outputs: int) -> str:
    """The matrix `[outputs, inputs]` of bilinear resampling."""
    matrix = F.interpolate(torch.eye(inputs)[None], outputs, mode="linear", align_corners=False)[0].T
    return graph.constant(matrix.numpy(), np.float32)


def confidences(scores: Tensor, size: tuple[int, int], query: Query) -> Tensor:
    """Of every class `[B, P, H, W]`, given scores `[B, P, h, w]`, by torch, whatever the graph does."""
    maps = F.interpolate(scores, size, mode="bilinear", align_corners=False)
    if scores.shape[1] > 1:
        return torch.softmax(query.logit_scale * maps, 1)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / torch.where(high == low, 1.0, high - low)


def right_labels(labels: Tensor, sure: Tensor, query: Query, error: float) -> float:
    """The share of labels `[B, H, W]` that are right by classes' confidences `[B, P, H, W]` that err by so much.

    Background stands for its own classes and the threshold: whichever label stands highest is right.
    """
    named = len(query.classes)
    threshold = torch.full_like(sure[:, :1], query.threshold)
    background = torch.cat([threshold, sure[:, named:]], 1).amax(1, keepdim=True)
    standing = torch.cat([background, sure[:, :named]], 1)
    chosen = standing.gather(1, labels[:, None].long())
    return (chosen >= standing.amax(1, keepdim=True) - error).double().mean().item()
