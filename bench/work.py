"""The work of a forward, counted kernel by kernel: products, exponentials, and the least bytes that must move.

One rule for bytes, that of a well-fused forward: each weight is read once a batch, and each activation that crosses
from one kernel to the next is written once and read once. What is elementwise (bias, position, activation, residual)
rides on the product it follows, which reads a residual beside its input; LayerNorm needs a whole row, and is a kernel
of its own. Attention reads its projections once and writes its output once: neither N×N matrices nor what an iteration
leaves for the next need leave the chip, as the native and the resident kernel show. The engine may move more.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch

from gem_fast.method import Method, as_method
from gem_fast.options import GemOptions
from gem_fast.towers.vision_config import VisionConfig

_ATTENTION = ("q·k attention", "iterations", "assignment")
_DECODING = ("scores", "labels")


@dataclass(frozen=True)
class Work:
    """One kernel, `times` times: FLOP of matrix products, exponentials, float32 FMA of the softmax, and DRAM bytes.

    FMA are counted for attention and labels alone; LayerNorm is bound by bytes.
    """

    kernel: str
    flop: float
    bytes: float
    exp: float = 0.0
    fma: float = 0.0
    times: int = 1

    def scaled(self, times: int) -> "Work":
        return replace(self, times=self.times * times)


@dataclass(frozen=True)
class Task:
    """B square images of `size` pixels through a tower; `item` bytes an element; labels of `classes` classes."""

    config: VisionConfig
    B: int
    size: int
    options: GemOptions | Method = field(default_factory=GemOptions)
    item: int = 2
    classes: int = 150

    @property
    def patches(self) -> int:
        return (self.size // self.config.patch_size) ** 2

    @property
    def N(self) -> int:  # noqa: N802
        return 1 + self.patches

    @property
    def heads(self) -> int:
        return self.B * self.config.heads

    @property
    def tokens(self) -> int:
        return self.B * self.N


def forward(task: Task) -> Iterator[Work]:
    """Every kernel of a method's forward (`vision.GemVisionTransformer`), of the scores and of the labels."""
    config, method = task.config, as_method(task.options)
    C, patch, own = config.width, config.patch_size, method.blocks
    both = max(own - 1, 0) if method.beside else 0  # blocks with the unchanged path and the method's
    whole = config.layers - own + both  # whose unchanged path is needed
    mlps = whole + own * method.mlp
    pairs, wanted = len(method.pairs), len(method.wanted)
    patches = task.B * task.patches
    yield linear(task, "patch embedding", patches, 3 * patch**2, C, beside=task.N * C)  # the position embedding
    yield elementwise(task, "LayerNorm", 2 * task.tokens * C).scaled(config.layers + mlps + config.pre_norm)
    yield linear(task, "QKV", task.tokens, C, 3 * C).scaled(whole)
    yield linear(task, "QKV", task.tokens, C, wanted * C).scaled(own - both)
    yield attention(task, "q·k attention", 1, 4).scaled(whole)
    for step in range(method.iterations):  # the first reads what it refines, and none has to write
        yield attention(task, "iterations", pairs, 0 if step else pairs).scaled(own)
    if pairs:
        unread = wanted - pairs if method.iterations else wanted
        yield attention(task, "assignment", pairs, unread + 1).scaled(own)
    # A block with both paths has one `out` for them.
    yield linear(task, "out", task.tokens, C, C, beside=task.tokens * C).scaled(whole + own - 2 * both)
    yield linear(task, "out", 2 * task.tokens, C, C, beside=2 * task.tokens * C).scaled(both)
    yield linear(task, "MLP", task.tokens, C, config.mlp_width).scaled(mlps)
    yield linear(task, "MLP", task.tokens, config.mlp_width, C, beside=task.tokens * C).scaled(mlps)
    yield elementwise(task, "head", 2 * task.tokens * C)  # of the class token too
    yield linear(task, "head", task.tokens, C, config.embed_dim)
    yield linear(task, "scores", patches, config.embed_dim, task.classes)
    yield labels(task)


def linear(task: Task, kernel: str, rows: int, inputs: int, outputs: int, beside: int = 0) -> Work:
    """A product with its weights; `beside` elements are read besides, as a residual is."""
    moved = rows * inputs + inputs * outputs + rows * outputs + beside
    return Work(kernel, 2 * rows * inputs * outputs, moved * task.item)


def elementwise(task: Task, kernel: str, elements: int) -> Work:
    return Work(kernel, 0, elements * task.item)


def attention(task: Task, kernel: str, softmaxes: int, tensors: int) -> Work:
    """`softmaxes` N×N softmaxes a head, two products each; `tensors` of `[B, N, C]` are read or written."""
    logits = softmaxes * task.heads * task.N**2
    moved = tensors * task.tokens * task.config.width * task.item
    width = task.config.width // task.config.heads
    return Work(kernel, 4 * logits * width, moved, exp=logits, fma=logits)


def labels(task: Task) -> Work:
    """Four taps and an exponential for each pixel and class; labels and confidences are written."""
    pixels = task.B * task.size**2
    read = task.B * task.patches * task.classes * 4
    return Work("labels", 0, read + pixels * 8, exp=pixels * task.classes, fma=4 * pixels * task.classes)


@dataclass(frozen=True)
class ForwardWork:
    """Operations (a multiply-add is two) and bytes of a forward.

    Attributes:
        linear: of the patch embedding and the linear layers.
        attention: of the products of attention, original and self-self.
        traffic: bytes that must move at the least, by the rule above.
    """

    linear: float
    attention: float
    traffic: float

    @property
    def flops(self) -> float:
        return self.linear + self.attention


def forward_work(
    config: VisionConfig, batch: int, size: int, options: GemOptions | Method | None = None, dtype: str = "float32"
) -> ForwardWork:
    """Work of a method's patch features of `batch` images of `size`×`size`; what only CLIP's own need is left out.

    Products of self-self attention count in full, though p pᵀ is symmetric.
    """
    task = Task(config, batch, size, options or GemOptions(), getattr(torch, dtype).itemsize)
    works = [w for w in forward(task) if w.kernel not in _DECODING]
    attention = sum(w.times * w.flop for w in works if w.kernel in _ATTENTION)
    linear = sum(w.times * w.flop for w in works) - attention
    return ForwardWork(linear, attention, sum(w.times * w.bytes for w in works))
