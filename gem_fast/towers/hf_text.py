"""Hugging Face's models as text towers: RoBERTa and XLM-RoBERTa by our own BERT, others by transformers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..errors import ModelError, missing_extra, shown
from .bert import bert_shapes, pack_bert
from .folders import named_folders, read_config
from .naming import TowerWeights
from .text_config import BertConfig
from .text_maker import TextMaker

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
_DEFAULTS: dict[str, Any] = {  # of transformers' configurations, which saved ones may leave out
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
_ROBERTA = {"pad_token_id": 1, "vocab_size": 50265}
_NO_SIZES = ("layer_norm_eps", "hidden_act")
_MOST = {"layers": 1 << 7, "max_position": 1 << 14, "d_model": 1 << 14, "hidden_size": 1 << 14}
_EXTRAS = ("transformer.pooler.", "transformer.embeddings.position_ids", "transformer.embeddings.token_type_ids")


def hf_text(name: str, model_cfg: dict[str, Any], places: tuple[Path, ...]) -> TextMaker:
    """The text tower of a config with `hf_model_name`.

    Raises:
        ModelError: its configuration is not at hand, or it is of an unknown kind.
    """
    text = model_cfg["text_cfg"]
    model = str(text["hf_model_name"])
    folder = _folder(model, places)
    config = read_config(folder / "config.json", name) if folder else _known(model)
    kind = config.get("model_type")
    pooler, projection = text.get("hf_pooler_type", "mean_pooler"), text.get("hf_proj_type", "mlp")
    if projection not in (None, "linear", "mlp"):
        raise ModelError(f"{name}: its text tower has hf_proj_type={shown(projection)}")
    if pooler not in (None, *_POOLERS, "cls_pooler"):  # open_clip's max_pooler ends with an error on any text
        raise ModelError(f"{name}: its text tower has hf_pooler_type={shown(pooler)}")
    if kind in _BERTS and pooler in _POOLERS:
        return BertLike(_bert_config(name, config, model_cfg), _layers(projection))
    if kind in (*_BERTS, *_OTHERS):
        if folder is None:
            told = f"{name}: its text tower, {model} with hf_pooler_type={shown(pooler)}, is made of a config.json"
            raise ModelError(f"{told}; a folder with that of {model} as tokenizer would do")
        _check_for_transformers(name, config)
        return ByTransformers(name, model_cfg, folder)
    raise ModelError(f"{name}: its text tower is a {shown(kind)}; {', '.join((*_BERTS, *_OTHERS))} are known")


def _check_for_transformers(name: str, config: dict[str, Any]) -> None:
    """Refuse sizes of what no weights bound, layers and a table of positions; and attention that would be fetched."""
    for key, value in config.items():
        most = next((most for part, most in _MOST.items() if part in key), None)
        told = f"{name}: the config.json of its text tower has {key}={shown(value)}"
        if most and type(value) is int and value > most:
            raise ModelError(f"{told}, of at most {most:,}")
        if key.endswith("attn_implementation") and value not in (None, "eager", "sdpa"):
            raise ModelError(f"{told}, not 'eager' or 'sdpa'")


def _folder(model: str, places: tuple[Path, ...]) -> Path | None:
    """Where the text model's `config.json` lies: one of the places, a folder there, or the hub's cache."""
    for folder in named_folders(model, places):
        kind = read_config(folder / "config.json", str(folder)).get("model_type")
        if kind in (*_BERTS, *_OTHERS):
            return folder
    if model in _KNOWN:
        return None
    from .hub import fetch  # whose client is slow to import

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
    text, kind = model_cfg["text_cfg"], config["model_type"]
    told = _DEFAULTS | {key: config[key] for key in _DEFAULTS if config.get(key) is not None}
    if kind != "bert":
        told |= {key: config.get(key, value) for key, value in _ROBERTA.items()}
    numbers = [value for key, value in told.items() if key not in _NO_SIZES]
    epsilon, heads = told["layer_norm_eps"], told["num_attention_heads"]
    if config.get("is_decoder"):
        raise ModelError(f"{name}: its text tower is a decoder, whose tokens see those before them alone; ours see all")
    if (
        any(type(number) is not int or not 0 <= number < 1 << 24 for number in numbers)
        or not all((told["hidden_size"], heads, told["num_hidden_layers"] < 1 << 10))
        or told["hidden_size"] % heads
        or not isinstance(epsilon, (int, float))
        or not 0 < epsilon < 1
        or told["hidden_act"] not in tuple(_ACTIVATIONS)
        or (text.get("hf_proj_type", "mlp") is None and told["hidden_size"] != model_cfg["embed_dim"])
        or told["max_position_embeddings"] <= (skipped := 0 if kind == "bert" else told["pad_token_id"] + 1)
    ):
        raise ModelError(f"{name}: the config.json of its text tower has sizes or an activation that can't be used")
    width, embed_dim, projection = told["hidden_size"], model_cfg["embed_dim"], text.get("hf_proj_type", "mlp")
    own = {"mlp": ((width + embed_dim) // 2, embed_dim), None: ()}
    return BertConfig(
        width=width,
        layers=told["num_hidden_layers"],
        heads=heads,
        mlp_width=told["intermediate_size"],
        vocabulary=told["vocab_size"],
        positions=told["max_position_embeddings"],
        context=min(text.get("context_length", 77), told["max_position_embeddings"] - skipped),
        padding=told["pad_token_id"],
        pool=_POOLERS[text.get("hf_pooler_type", "mean_pooler")],
        projection=own.get(projection, (embed_dim,)),
        activation=_ACTIVATIONS[told["hidden_act"]],
        norm_eps=float(epsilon),
        skipped_positions=skipped,
        token_types=told["type_vocab_size"],
    )


def _layers(projection: str | None) -> tuple[str, ...]:
    return ("proj.0", "proj.2") if projection == "mlp" else ("proj",)


@dataclass(frozen=True)
class BertLike(TextMaker):
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


class ByTransformers(TextMaker):
    """open_clip's module around one of transformers'; nothing but its config is taken from the folder."""

    def __init__(self, name: str, model_cfg: dict[str, Any], folder: Path) -> None:
        try:
            import transformers  # noqa: F401
        except ImportError as error:
            raise missing_extra(f"the text tower of {name}", "transformers", error) from error
        from open_clip.hf_model import HFTextEncoder

        text = model_cfg["text_cfg"]
        try:
            with _weights_without_memory():
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


@contextmanager
def _weights_without_memory() -> Iterator[None]:
    """Modules that this thread makes have parameters of a shape alone, and buffers, which no file has, of numbers."""
    thread = get_ident()

    def emptied(_module: nn.Module, _name: str, parameter: nn.Parameter) -> Any:
        if get_ident() == thread and not parameter.is_meta:
            return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        return None  # as it is

    hook = register_module_parameter_registration_hook(emptied)
    try:
        yield
    finally:
        hook.remove()
