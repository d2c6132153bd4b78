"""BERT as a text tower: BLIP's, and those of the CLIPs with RoBERTa and XLM-RoBERTa."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layer import Linear
from .naming import TowerWeights
from .text_config import BertConfig


class BertBlock(nn.Module):
    """A block whose LayerNorms follow the sums."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.heads = config.heads
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.ln_1 = nn.LayerNorm(width, eps)
        self.mlp_in = Linear(width, config.mlp_width, activation=config.activation)
        self.mlp_out = Linear(config.mlp_width, width)
        self.ln_2 = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Tokens [n, L, C], of which those are attended to where `seen` [n, 1, 1, L] is true."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
        x = self.ln_1(x + self.out(attended))
        return self.ln_2(x + self.mlp_out(self.mlp_in(x)))


class BertText(nn.Module):
    """Token ids to embeddings; what lies behind the longest text is not computed."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embedding = nn.Parameter(torch.zeros(config.vocabulary, config.width))
        self.position_embedding = nn.Parameter(torch.zeros(config.positions - config.skipped_positions, config.width))
        self.ln_embedding = nn.LayerNorm(config.width, config.norm_eps)
        self.blocks = nn.ModuleList(BertBlock(config) for _ in range(config.layers))
        widths, last = (config.width, *config.projection), len(config.projection) - 1
        self.projection = nn.ModuleList(
            Linear(widths[i], widths[i + 1], config.projection_bias, "gelu" if i < last else None)
            for i in range(len(config.projection))
        )

    def extra_repr(self) -> str:
        return str(self.config)

    def forward(self, tokens: Tensor) -> Tensor:
        """Ids [n, context] to embeddings [n, E]."""
        seen = tokens != self.config.padding
        places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        length = max(1, int((seen * places).max()))
        tokens, seen = tokens[:, :length], seen[:, :length]
        x = self.ln_embedding(self.word_embedding[tokens] + self.position_embedding[:length])
        for block in self.blocks:
            x = block(x, seen[:, None, None])
        x = x[:, 0] if self.config.pool == "first" else _mean(x, seen)
        for layer in self.projection:
            x = layer(x)
        return x


def _mean(x: Tensor, seen: Tensor) -> Tensor:
    weights = seen.to(x.dtype)[..., None]
    return (x * weights).sum(1) / weights.sum(1)


def bert_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tower's weights in Hugging Face's models, without their projection."""
    C, M = config.width, config.mlp_width
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocabulary, C),
        "embeddings.position_embeddings.weight": (config.positions, C),
        **_pair("embeddings.LayerNorm", C),
    }
    if config.token_types:
        shapes["embeddings.token_type_embeddings.weight"] = (config.token_types, C)
    for i in range(config.layers):
        layer = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            shapes |= _pair(f"{layer}.attention.self.{name}", C, C)
        shapes |= _pair(f"{layer}.attention.output.dense", C, C) | _pair(f"{layer}.attention.output.LayerNorm", C)
        shapes |= _pair(f"{layer}.intermediate.dense", M, C) | _pair(f"{layer}.output.dense", C, M)
        shapes |= _pair(f"{layer}.output.LayerNorm", C)
    return shapes


def _pair(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def pack_bert(weights: TowerWeights, config: BertConfig, projection: tuple[str, ...]) -> BertText:
    """The tower, in float32, of weights under the names of `bert_shapes`, and those of its projection's layers."""
    take, layer = weights.take, weights.layer
    positions = take("embeddings.position_embeddings.weight")[config.skipped_positions :]
    if config.token_types:
        positions = positions + take("embeddings.token_type_embeddings.weight")[0]
    packed = {"word_embedding": take("embeddings.word_embeddings.weight"), "position_embedding": positions}
    packed |= layer("embeddings.LayerNorm", "ln_embedding")
    for i in range(config.layers):
        place, block = f"encoder.layer.{i}", f"blocks.{i}"
        for kind in ("weight", "bias"):
            parts = [take(f"{place}.attention.self.{name}.{kind}") for name in ("query", "key", "value")]
            packed[f"{block}.qkv.{kind}"] = torch.cat(parts)
        packed |= layer(f"{place}.attention.output.dense", f"{block}.out")
        packed |= layer(f"{place}.attention.output.LayerNorm", f"{block}.ln_1")
        packed |= layer(f"{place}.intermediate.dense", f"{block}.mlp_in")
        packed |= layer(f"{place}.output.dense", f"{block}.mlp_out")
        packed |= layer(f"{place}.output.LayerNorm", f"{block}.ln_2")
    for i, name in enumerate(projection):
        for kind in ("weight", "bias") if config.projection_bias else ("weight",):
            packed[f"projection.{i}.{kind}"] = take(f"{name}.{kind}")
    with torch.device("meta"):
        tower = BertText(config)
    tower.load_state_dict({name: packed.pop(name).float().contiguous() for name in list(packed)}, assign=True)
    return tower.requires_grad_(False).eval()
