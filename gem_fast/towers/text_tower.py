"""CLIP's text transformer, and those of open_clip's other models, over packed weights."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gem_fast.kernels import add_layer_norm

from .layer import Linear, in_turn
from .naming import TowerWeights, blocks_from_open_clip
from .text_config import TextConfig


class Layout(NamedTuple):
    """How the tokens of texts lie in one row `[1, shared + n * length, C]`, and who sees whom.

    Attributes:
        shared: tokens that all texts begin with, which are computed once, and lie in front.
        texts, length: how many texts, and the tokens of each behind the shared ones.
        read: places in the row of the tokens that are read, `[n]`.
        seen: 0 for what a token of a text sees and -inf for the rest, `[1 or n, 1, length, shared + length]`; None for
            all.
        seen_by_read: the same of the token that is read, `[n, 1, 1, shared + length]`.
    """

    shared: int
    texts: int
    length: int
    read: Tensor
    seen: Tensor | None
    seen_by_read: Tensor | None


class TextBlock(nn.Module):
    """A transformer block; LayerScale is folded into `out` and `mlp_out` when weights are packed."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.heads = config.heads
        self.ln_1 = nn.LayerNorm(width, eps)
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.ln_2 = nn.LayerNorm(width, eps)
        self.mlp_in = Linear(width, config.mlp_width, activation=config.activation)
        self.mlp_out = Linear(config.mlp_width, width)

    def forward(self, x: Tensor, branch: Tensor | None, layout: Layout, last: bool) -> tuple[Tensor, Tensor]:
        """Tokens in a row, whose last summand waits, to the same; of the last block only the tokens that are read."""
        x, y, *_ = add_layer_norm(x, branch, self.ln_1.weight, self.ln_1.bias, self.ln_1.eps)
        attended = self.attend(self.qkv(y)[0].unflatten(-1, (3, self.heads, -1)), layout, last)
        x = x[:, layout.read] if last else x
        x, y, *_ = add_layer_norm(x, self.out(attended[None]), self.ln_2.weight, self.ln_2.bias, self.ln_2.eps)
        return x, in_turn(self.mlp_in, self.mlp_out, y)

    def attend(self, qkv: Tensor, layout: Layout, last: bool) -> Tensor:
        """Projections [T, 3, H, D] to what the tokens that are wanted gather, [T or n, C]."""
        shared, seen = layout.shared, layout.seen
        own = qkv[shared:].unflatten(0, (layout.texts, layout.length))  # [n, length, 3, H, D]
        front = qkv[:shared].expand(len(own), -1, -1, -1, -1)
        k, v = _heads(torch.cat([front[:, :, 1:], own[:, :, 1:]], 1) if shared else own[:, :, 1:])
        q = _heads(own[:, :, :1])[0]
        if last:
            q, seen = qkv[layout.read, 0, :, None], layout.seen_by_read
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2).flatten(0, 1)
        if last or not shared:
            return gathered
        first = _heads(front[:1])
        alone = F.scaled_dot_product_attention(first[0], first[1], first[2], is_causal=True)  # [1, H, shared, D]
        return torch.cat([alone[0].transpose(0, 1).flatten(1), gathered])


def _heads(projections: Tensor) -> Tensor:
    """[n, L, P, H, D] as [P, n, H, L, D]."""
    return projections.permute(2, 0, 3, 1, 4)


class TextTower(nn.Module):
    """Token ids to embeddings. Padding that changes nothing is not computed, nor what all texts begin with more than
    once, nor what the last block would give of tokens that are not read."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Parameter(torch.zeros(config.vocabulary, config.width))
        self.position_embedding = nn.Parameter(torch.zeros(config.positions, config.width))
        if config.class_token:
            self.class_embedding = nn.Parameter(torch.zeros(config.width))
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.layers))
        self.ln_final = nn.LayerNorm(config.width, config.norm_eps)
        if config.projection:
            self.projection = Linear(config.width, config.embed_dim, config.projection_bias)

    def extra_repr(self) -> str:
        return str(self.config)

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids [n, context] to embeddings [n, E]."""
        layout = self.layout(tokens)
        x, branch = self.embed(tokens, layout), None
        for index, block in enumerate(self.blocks, 1):
            x, branch = block(x, branch, layout, last=index == len(self.blocks))
        y = add_layer_norm(x, branch, self.ln_final.weight, self.ln_final.bias, self.ln_final.eps).y
        return (self.projection(y) if self.config.projection else y)[0]

    def embed(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Tokens with their positions in one row, `[1, T, C]`."""
        shared, words = layout.shared, layout.length - self.config.class_token
        x = self.token_embedding[tokens[:, shared : shared + words]]
        x = x + self.position_embedding[shared : shared + words]
        if self.config.class_token:
            x = torch.cat([x, (self.class_embedding + self.position_embedding[-1]).expand(len(x), 1, -1)], 1)
        front = self.token_embedding[tokens[0, :shared]] + self.position_embedding[:shared]
        return torch.cat([front, x.flatten(0, 1)])[None]

    def layout(self, tokens: Tensor) -> Layout:
        """What of texts [n, context] is computed."""
        config, (n, context) = self.config, tokens.shape
        if config.class_token:
            return self._with_class_token(tokens)
        end = self.places_read(tokens)
        if not config.causal:
            return Layout(0, n, context, end + context * torch.arange(n, device=end.device), None, None)
        longest, shared = int(end.max()) + 1, 0
        if n > 1:
            same = (tokens == tokens[:1]).all(0).long().cumprod(0)
            shared = min(int(same.sum()), int(end.min()))
        length = longest - shared
        read = end + length * torch.arange(n, device=end.device)
        places = torch.arange(longest, device=end.device)
        seen = places <= places[shared:, None]
        return Layout(shared, n, length, read, self._mask(seen), self._mask(places <= end[:, None, None]))

    def _with_class_token(self, tokens: Tensor) -> Layout:
        """CoCa's: its weights were trained with a mask of the padding that is one token off, the first one counting for
        the class token."""
        n, context = tokens.shape
        kept = F.pad(tokens != self.config.padding, (1, 0), value=True)  # [n, context + 1]
        places = torch.arange(context + 1, device=tokens.device)
        words = min(int((kept * places).max()) + 1, context)  # behind them nothing but the class token is left
        chosen = torch.cat([places[:words], places[-1:]])
        seen = kept[:, None, chosen]
        if self.config.causal:
            seen = seen & (chosen <= chosen[:, None])
        read = (words + 1) * torch.arange(1, n + 1, device=tokens.device) - 1
        return Layout(0, n, words + 1, read, self._mask(seen), self._mask(seen[:, -1:]))

    def _mask(self, seen: Tensor) -> Tensor:
        """What is added to logits, for all heads, of who sees whom, [L, L] or [n, L, L]."""
        hidden = torch.zeros(seen.shape, dtype=self.position_embedding.dtype, device=seen.device)
        return hidden.masked_fill_(~seen, float("-inf")).view(-1, 1, *seen.shape[-2:])

    def places_read(self, tokens: Tensor) -> Tensor:
        """Of the tokens that are read, [n], of ids [n, context]."""
        config = self.config
        if config.pool in ("first", "last"):
            return torch.full_like(tokens[:, 0], 0 if config.pool == "first" else tokens.shape[1] - 1)
        return ((tokens == config.end).int() if config.pool == "eos" else tokens).argmax(dim=-1)


def pack_text(state: dict[str, Tensor], config: TextConfig) -> TextTower:
    """The tower of weights in open_clip's names. The state is emptied: no weight is held twice."""
    weights = TowerWeights(state, "text")
    take = weights.take
    packed = {"token_embedding": take("token_embedding.weight"), "position_embedding": take("positional_embedding")}
    if config.class_token:
        packed["class_embedding"] = take("cls_emb")
    packed |= weights.layer("ln_final", "ln_final") | dict(blocks_from_open_clip(weights, config.layers))
    if config.projection_bias:
        packed |= weights.layer("text_projection", "projection")
    elif config.projection:
        packed["projection.weight"] = take("text_projection").T
    with torch.device("meta"):
        tower = TextTower(config)
    tower.load_state_dict({name: packed.pop(name).contiguous() for name in list(packed)}, assign=True)
    return tower.requires_grad_(False).eval()
