"""A block of the vision transformer, and tokens whose sum waits for the LayerNorm after it."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from gem_fast.kernels import add_layer_norm, linear, query_key_attention, silu_gate
from gem_fast.kernels.layer_norm import Normed

from .layer import Linear, in_turn
from .vision_config import VisionConfig


class Sum(NamedTuple):
    """Tokens `[B, N, C]` that are yet to be added up, which the next LayerNorm does: x, and a branch of the same shape
    or for all images `[N, C]`."""

    x: Tensor
    branch: Tensor | None = None

    def added(self) -> Tensor:
        return self.x if self.branch is None else self.x + self.branch


def normed(
    norm: nn.LayerNorm,
    tokens: Sum,
    head_width: int | None = None,
    aside: Sum | None = None,
    backend: str | None = None,
) -> Normed:
    """Tokens added up and normalised, and with it another sum; arguments as in `add_layer_norm`."""
    pair = None if aside is None or aside.branch is None else (aside.x, aside.branch)
    found = add_layer_norm(*tokens, norm.weight, norm.bias, norm.eps, head_width, pair, backend=backend)
    return found if aside is None or pair else found._replace(aside=aside.x)


class Block(nn.Module):
    """A transformer block; LayerScale is folded into `out` and `mlp_out` when weights are packed."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.heads = config.heads
        self.ln_1 = nn.LayerNorm(width, eps)
        self.qkv = Linear(width, 3 * width)
        self.attention_norm = nn.LayerNorm(width, eps) if config.attention_norm else nn.Identity()
        self.out = Linear(width, width)
        self.ln_2 = nn.LayerNorm(width, eps)
        self.gated = config.gated
        self.mlp_in = Linear(width, config.mlp_width, activation=None if config.gated else config.activation)
        if config.gated:
            self.mlp_gate = Linear(width, config.mlp_width)
            self.mlp_norm = nn.LayerNorm(config.mlp_width, eps)
        self.mlp_out = Linear(config.mlp_width, width)

    def check_move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Raise ModelError if its weights can't be cast or moved as `fn` does it."""

    def project(self, y: Tensor, wanted: str = "qkv") -> Tensor:
        """Packed projections of normalised tokens: [B, N, C] -> [B, N, 3, H, D]; those not wanted stay unset."""
        B, N, C = y.shape
        if set(wanted) == set("qkv"):
            return self.qkv(y).view(B, N, 3, self.heads, C // self.heads)
        packed = y.new_empty(B, N, 3, C)
        for letter in wanted:  # by parts of a plain weight, which this layer has from here on
            index = "qkv".index(letter)
            rows = slice(index * C, (index + 1) * C)
            packed[:, :, index] = linear(y, self.qkv.weight[rows], self.qkv.bias[rows])
        return packed.view(B, N, 3, self.heads, C // self.heads)

    def original(self, x: Tensor, qkv: Tensor, backend: str | None = None) -> Sum:
        """The unchanged block of tokens [B, N, C], given its projections, rotated where it rotates them."""
        return self.after_attention(Sum(x, self.merge(query_key_attention(qkv, backend))), backend)

    def merge(self, attended: Tensor) -> Tensor:
        """What the heads' results [B, N, C] add to the tokens, [B, N, C]."""
        return self.out(self.attention_norm(attended))

    def after_attention(self, tokens: Sum, backend: str | None = None) -> Sum:
        """The block's second half."""
        x, y, *_ = normed(self.ln_2, tokens, backend=backend)
        if self.gated:
            return Sum(x, self.mlp_out(self.mlp_norm(silu_gate(self.mlp_gate(y), self.mlp_in(y, backend), backend))))
        return Sum(x, in_turn(self.mlp_in, self.mlp_out, y, backend))
