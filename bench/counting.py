"""Work of one forward as counted from its shapes: operations and the least memory traffic."""

from dataclasses import dataclass

from gem_fast.options import GemOptions
from gem_fast.vision import VisionConfig

from .work import Task, forward

_ATTENTION = ("q·k attention", "iterations", "assignment")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Work:
    """Operations (a multiply-add is two) and bytes of a forward.

    Attributes:
        linear: of the patch embedding and the linear layers.
        attention: of the products of attention, original and self-self.
        traffic: bytes that must move if every layer reads its input and weights and writes its output once, and
            attention keeps what is N×N on the chip.
    """

    linear: float
    attention: float
    traffic: float

    @property
    def flops(self) -> float:
        return self.linear + self.attention


def forward_work(
    config: VisionConfig,
    batch: int,
    size: int,
    *,
    gem_blocks: int = 6,
    iterations: int = 1,
    projections: str = "qkv",
    dtype: str = "float32",
) -> Work:
    """Work of GEM's patch features of `batch` images of `size`×`size`; what only the unchanged path needs left out.

    Products of self-self attention count in full, though p pᵀ is symmetric.
    """
    C, M, E, L = config.width, config.mlp_width, config.embed_dim, config.layers
    patches = (size // config.patch_size) ** 2
    N = patches + 1
    whole = L - 1  # blocks whose unchanged path is needed
    options = GemOptions(gem_blocks=gem_blocks, iterations=iterations, projections=projections)
    linear = attention = 0.0
    for work in forward(Task(config, batch, size, options)):
        if work.kernel in _ATTENTION:
            attention += work.times * work.flop
        elif work.kernel != "scores":
            linear += work.times * work.flop
    weights = L * (4 * C * C + 2 * C * M) + C * 3 * config.patch_size**2 + C * E
    # activations a token: of every whole block ln, qkv, attention, out, ln, mlp; of GEM's attention input and output
    activations = whole * (2 * C + 4 * C + 4 * C + 3 * C + 2 * C + 2 * (C + M) + C) + gem_blocks * (4 * C + 3 * C)
    traffic = BYTES[dtype] * (weights + batch * N * activations)
    return Work(linear, attention, traffic)
