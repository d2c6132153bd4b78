"""Hugging Face's models as text towers: RoBERTa and XLM-RoBERTa by our own BERT, others by transformers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, missing_extra
from .bert import BertConfig, bert_shapes, pack_bert
from .folders import read_config
from .hub import fetch
from .naming import TowerWeights

_BERTS = ("bert", "roberta", "xlm-roberta")
_OTHERS = ("mt5", "t5", "m2m_100")
# Configurations of the models that open_clip names, so that they need no file: width, layers, heads, tokens.
_KNOWN = {
    "roberta-base": ("roberta", 768, 12, 12, 50265),
    "xlm-roberta-base": ("xlm-roberta", 768, 12, 12, 250002),
    "xlm-roberta-large": ("xlm-roberta", 1024, 24, 16, 250002),
}
_POOLERS = {"mean_pooler": "mean", "cls_last_hidden_state_pooler": "first"}
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_EXTRAS = ("transformer.pooler.", "transformer.embeddings.position_ids", "transformer.embeddings.token_type_ids")


class HfText(ABC):
    """A text tower to be made: what weights it takes, under open_clip's names without `text.`."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its weights."""

    @abstractmethod
    def made(self, state: dict[str, Tensor]) -> nn.Module:
        """The tower with these weights, which are float32."""

    def taken(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state without what the tower does not use."""
        return state

    def random(self) -> dict[str, Tensor]:
        """Untrained weights."""
        return {
            name: torch.randn(shape) * 0.02 if len(shape) > 1 else torch.full(shape, float(name.endswith("weight")))
            for name, shape in self.shapes().items()
        }


def hf_text(name: str, model_cfg: dict[str, Any], places: tuple[Path, ...]) -> HfText:
    """The text tower of a config with `hf_model_name`.

    Raises:
        ModelError: its configuration is not at hand, or it is of an unknown kind.
    """
    text = model_cfg["text_cfg"]
    folder = _folder(str(text["hf_model_name"]), places)
    config = read_config(folder / "config.json", name) if folder else _known(str(text["hf_model_name"]))
    kind = config.get("model_type")
    pooler, projection = text.get("hf_pooler_type", "mean_pooler"), text.get("hf_proj_type", "mlp")
    if projection not in (None, "linear", "mlp"):
        raise ModelError(f"{name}: its text tower has hf_proj_type={projection!r}")
    if kind in _BERTS and pooler in _POOLERS:
        return BertLike(_bert_config(name, config, model_cfg), _layers(projection))
    if kind in (*_BERTS, *_OTHERS):
        assert folder is not None
        return ByTransformers(name, model_cfg, folder)
    raise ModelError(f"{name}: its text tower is a {kind!r}; {', '.join((*_BERTS, *_OTHERS))} are known")


def _folder(model: str, places: tuple[Path, ...]) -> Path | None:
    """Where the text model's `config.json` lies: its own folder, one of the places, or the hub's cache."""
    for folder in (Path(model), *places):
        kind = read_config(folder / "config.json", str(folder)).get("model_type")
        if kind in (*_BERTS, *_OTHERS):
            return folder
    if model in _KNOWN:
        return None
    try:
        return fetch(model, ("config.json",)).parent
    except ModelError as error:
        raise ModelError(f"{error}; a folder with the config.json of {model} as tokenizer would do") from error


def _known(model: str) -> dict[str, Any]:
    kind, width, layers, heads, words = _KNOWN[model]
    return {
        "model_type": kind,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "vocab_size": words,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
    }


def _bert_config(name: str, config: dict[str, Any], model_cfg: dict[str, Any]) -> BertConfig:
    """Of a `config.json`; what it leaves out is transformers' default."""
    text, roberta = model_cfg["text_cfg"], config["model_type"] != "bert"
    get = config.get
    width, embed_dim = get("hidden_size", 768), model_cfg["embed_dim"]
    projection: tuple[int, ...] = (embed_dim,)
    if text.get("hf_proj_type", "mlp") == "mlp":
        projection = ((width + embed_dim) // 2, embed_dim)
    elif text.get("hf_proj_type", "mlp") is None and width == embed_dim:
        projection = ()
    padding = get("pad_token_id", 1 if roberta else 0)
    activation = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}.get(
        get("hidden_act", "gelu")
    )
    numbers = (width, embed_dim, get("num_hidden_layers", 12), get("num_attention_heads", 12), padding)
    if activation is None or any(type(number) is not int for number in numbers) or not 0 <= padding < 1 << 20:
        raise ModelError(f"{name}: the config.json of its text tower has sizes or an activation that can't be used")
    skipped = padding + 1 if roberta else 0
    positions = get("max_position_embeddings", 512)
    return BertConfig(
        width=width,
        layers=get("num_hidden_layers", 12),
        heads=get("num_attention_heads", 12),
        mlp_width=get("intermediate_size", 3072),
        vocabulary=get("vocab_size", 50265 if config["model_type"] == "roberta" else 30522),
        positions=positions,
        context=min(text.get("context_length", 77), positions - skipped),
        padding=padding,
        pool=_POOLERS[text.get("hf_pooler_type", "mean_pooler")],
        projection=projection,
        activation=activation,
        norm_eps=float(get("layer_norm_eps", 1e-12)),
        skipped_positions=skipped,
        token_types=get("type_vocab_size", 2),
    )


def _layers(projection: str | None) -> tuple[str, ...]:
    return ("proj.0", "proj.2") if projection == "mlp" else ("proj",)


@dataclass(frozen=True)
class BertLike(HfText):
    """By our own BERT, without transformers."""

    config: BertConfig
    layers: tuple[str, ...]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        widths = (self.config.width, *self.config.projection)
        own = {f"transformer.{name}": shape for name, shape in bert_shapes(self.config).items()}
        pairs = zip(self.layers, widths[1:], widths, strict=False)
        return own | {f"{layer}.weight": (after, before) for layer, after, before in pairs}

    def taken(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in state.items() if not name.startswith(_EXTRAS)}

    def made(self, state: dict[str, Tensor]) -> nn.Module:
        own = {name.removeprefix("transformer."): value for name, value in state.items()}
        return pack_bert(TowerWeights(own, "text"), self.config, self.layers[: len(self.config.projection)])


class ByTransformers(HfText):
    """open_clip's module around one of transformers'; nothing but its config is taken from the folder."""

    def __init__(self, name: str, model_cfg: dict[str, Any], folder: Path) -> None:
        try:
            import transformers  # noqa: F401
        except ImportError as error:
            raise missing_extra(f"the text tower of {name}", "transformers", error) from error
        from open_clip.hf_model import HFTextEncoder

        text = model_cfg["text_cfg"]
        try:
            self.tower: nn.Module = HFTextEncoder(
                str(folder),
                model_cfg["embed_dim"],
                pooler_type=text.get("hf_pooler_type", "mean_pooler"),
                proj_type=text.get("hf_proj_type", "mlp"),
                pretrained=False,
            )
        except Exception as error:  # transformers raises many kinds
            raise ModelError(f"{name}: transformers can't make its text tower: {str(error)[:200]}") from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in self.tower.state_dict().items()}

    def made(self, state: dict[str, Tensor]) -> nn.Module:
        self.tower.load_state_dict(state, assign=True)
        return self.tower.float().requires_grad_(False).eval()

    def random(self) -> dict[str, Tensor]:
        return dict(self.tower.state_dict())
