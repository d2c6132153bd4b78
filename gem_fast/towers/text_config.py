"""What text towers are made of. Needs no torch."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TextConfig:
    """Shape of CLIP's text transformer, and in what others of open_clip differ from it.

    Attributes:
        context: the most tokens of a text.
        projection: a linear layer behind the tower; without, its width is that of the embedding.
        projection_bias: with a bias.
        causal: a token sees those before it alone.
        pool: the token that is read: the one of the highest id (`"argmax"`), the first of the id `end` (`"eos"`), the
            `"first"` or the `"last"` of the context.
        class_token: one of the tower's own behind each text is read, and the padding is hidden from it (CoCa).
        padding: the id of what is hidden from it.
        layer_scale: the weights have factors of each block's branches.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    vocabulary: int
    context: int
    embed_dim: int
    activation: str = "gelu"  # gelu, gelu_tanh or quick_gelu
    norm_eps: float = 1e-5
    projection: bool = True
    projection_bias: bool = False
    causal: bool = True
    pool: str = "argmax"
    end: int = 2
    class_token: bool = False
    padding: int = 0
    layer_scale: bool = False

    @property
    def positions(self) -> int:
        """Rows of the position embedding."""
        return self.context + self.class_token

    @property
    def reads_padding(self) -> bool:
        """Whether what lies behind a text is part of what is computed, so that all are filled up to the context."""
        return not self.causal or self.class_token or self.pool == "last"


def text_config(model_cfg: dict[str, Any]) -> TextConfig:
    """The shape of the text transformer of open_clip's config, with its defaults."""
    text = model_cfg["text_cfg"]
    width = text.get("width", 512)
    tanh = (text.get("act_kwargs") or {}).get("approximate", "none") == "tanh"
    projection = text.get("proj_type", "linear") != "none"
    return TextConfig(
        width=width,
        layers=text.get("layers", 12),
        heads=text.get("heads", 8),
        mlp_width=int(width * text.get("mlp_ratio", 4.0)),
        vocabulary=text.get("vocab_size", 49408),
        context=text.get("context_length", 77),
        embed_dim=model_cfg["embed_dim"] if projection else width,
        activation="quick_gelu" if model_cfg.get("quick_gelu") else "gelu_tanh" if tanh else "gelu",
        norm_eps=(text.get("norm_kwargs") or {}).get("eps", 1e-5),
        projection=projection,
        projection_bias=projection and bool(text.get("proj_bias", False)),
        causal=not text.get("no_causal_mask", False),
        pool=text.get("pool_type", "argmax"),
        end=text.get("eos_id", 2),
        class_token=bool(text.get("embed_cls", False)),
        padding=text.get("pad_id", 0),
        layer_scale=text.get("ls_init_value") is not None,
    )


@dataclass(frozen=True)
class BertConfig:
    """Shape of the tower.

    Attributes:
        context: the most tokens of a text.
        padding: id of the tokens behind a text, which nothing attends to.
        pool: what is read: the `"first"` token, or the `"mean"` of those that are no padding.
        projection: widths behind the tower, a linear layer each with GELU between them; none for the tower's own.
        projection_bias: whether these have one.
        skipped_positions: rows of the position embedding before that of the first token (RoBERTa).
        token_types: rows of an embedding of which the first is added to each token; 0 for none (BLIP).
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    vocabulary: int
    positions: int
    context: int
    padding: int = 0
    pool: str = "first"
    projection: tuple[int, ...] = ()
    projection_bias: bool = False
    activation: str = "gelu"
    norm_eps: float = 1e-12
    skipped_positions: int = 0
    token_types: int = 0
