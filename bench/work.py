"""The work of a forward, counted kernel by kernel as the engine launches it: products, exponentials, bytes."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from gem_fast.options import GemOptions
from gem_fast.vision import VisionConfig


@dataclass(frozen=True)
class Work:
    """One kernel, `times` times: FLOP of matrix products, exponentials, float32 FMA of the softmax, and DRAM bytes.

    Bytes are what no cache can save: every input, weight and output once. FMA are counted for attention and labels
    alone; elementwise kernels and LayerNorm are bound by bytes.
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
    options: GemOptions = field(default_factory=GemOptions)
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
    """Every kernel of GEM's forward (`vision.GemVisionTransformer`), of the scores and of the labels."""
    config, options = task.config, task.options
    C, patch = config.width, config.patch_size
    plain, gem = config.layers - options.gem_blocks, options.gem_blocks
    last = len({*options.projections, "v"})  # projections that the last block needs
    pixels = task.B * task.size**2 * 3
    yield linear(task, "patch embedding", task.B * task.patches, 3 * patch**2, C)
    yield elementwise(task, "patch embedding", pixels + 2 * task.tokens * C)
    yield elementwise(task, "LayerNorm", 2 * task.tokens * C).scaled(
        config.layers + config.layers - 1 + config.pre_norm
    )
    yield linear(task, "QKV", task.tokens, C, 3 * C).scaled(config.layers - 1)
    yield linear(task, "QKV", task.tokens, C, last * C)
    yield attention(task, "q·k attention", 1, 4).scaled(plain + gem - 1)
    projections = len(options.projections)
    if options.iterations:
        yield attention(task, "iterations", projections, 2 * projections).scaled(gem * options.iterations)
    yield attention(task, "assignment", projections, projections + 2).scaled(gem)
    yield linear(task, "out", task.tokens, C, C).scaled(plain + gem - 1 + gem)
    yield linear(task, "MLP", task.tokens, C, config.mlp_width).scaled(config.layers - 1)
    yield linear(task, "MLP", task.tokens, config.mlp_width, C).scaled(config.layers - 1)
    yield elementwise(task, "MLP", 2 * task.tokens * config.mlp_width).scaled(config.layers - 1)
    yield elementwise(task, "residual", 3 * task.tokens * C).scaled(2 * (config.layers - 1) + gem)
    yield elementwise(task, "head", 2 * task.B * task.patches * C)
    yield linear(task, "head", task.B * task.patches, C, config.embed_dim)
    yield linear(task, "scores", task.B * task.patches, config.embed_dim, task.classes)
    yield labels(task)


def linear(task: Task, kernel: str, rows: int, inputs: int, outputs: int) -> Work:
    moved = rows * inputs + inputs * outputs + rows * outputs
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
