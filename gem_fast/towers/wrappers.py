"""A state dict out of what training scripts wrap around it: dictionaries, prefixes, TorchScript's modules."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..errors import shown
from .stored import Inert, Module, StoredTensor, UnreadableError, foreign

# Keys under which checkpoints hold their state dict, the likelier first.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "model_state", "net", "network", "clip", "weights")
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
# Components that wrappers of modules put into names, wherever they stand.
_TRANSPARENT = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_COUNTER = "n_averaged"  # beside the weights that torch's AveragedModel wraps
# A name of each kind of CLIP: what stands before it is the place of the model inside another module.
_ANCHORS = ("visual.conv1.weight", "visual.trunk.pos_embed", "vision_model.embeddings.patch_embedding.weight")
_PREFIXES = {"model", "clip", "clip_model", "net", "network", "backbone"}  # taken off where no anchor is found
_DEEPEST = 64
_MOST_NAMES = 100_000
_LONGEST = 1 << 9  # letters of a name that is put together


def unwrapped(content: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Tensors by the names of the file, out of dictionaries and modules, and the names of numbers beside them.

    Raises:
        UnreadableError: there are no tensors; the text says what there is.
    """
    found = dict(_attributes(content)) if isinstance(content, Module) else _inner(content)
    named = {name: value for name, value in found.items() if isinstance(name, str)}
    if objects := [value.name for value in named.values() if isinstance(value, Inert)]:
        raise foreign(objects[0])
    tensors = {name: value for name, value in named.items() if isinstance(value, (Tensor, StoredTensor))}
    if not tensors:
        raise UnreadableError(_without_tensors(content))
    return tensors, frozenset(name for name, value in named.items() if isinstance(value, int))


def plain_names(tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors without the prefixes that wrapping modules give; of a CLIP inside another model, the CLIP alone.

    Raises:
        UnreadableError: two models are in it.
    """
    plain: dict[str, Any] = {}
    for name, value in tensors.items():
        short = ".".join(part for part in name.split(".") if part not in _TRANSPARENT)
        if short == _COUNTER:
            continue
        if short in plain:
            raise UnreadableError(f"holds {shown(short)} twice, under several prefixes")
        plain[short] = value
    places = {name.removesuffix(anchor) for name in plain for anchor in _ANCHORS if f".{name}".endswith(f".{anchor}")}
    if len(places) > 1:
        raise UnreadableError(f"holds several CLIP models, under {', '.join(map(shown, sorted(places)[:5]))}; keep one")
    for place in places:
        return {name.removeprefix(place): value for name, value in plain.items() if name.startswith(place)}
    return _without_prefix(plain)


def _inner(content: Any) -> dict[Any, Any]:
    for _ in range(_DEEPEST):
        if not isinstance(content, dict):
            return {}
        wrapped = [content[key] for key in (*_WRAPPERS, *_AVERAGES) if isinstance(content.get(key), (dict, Module))]
        if not wrapped:
            return content
        content = wrapped[0]
        if isinstance(content, Module):
            return dict(_attributes(content))
    return {}


def _attributes(top: Module) -> Iterator[tuple[str, Any]]:
    """Names and values in a TorchScript module and those inside it, as its state dict would have them."""
    waiting: list[tuple[str, Module, int]] = [("", top, 0)]
    count = 0
    while waiting:
        prefix, module, depth = waiting.pop()
        for name, value in module.attributes.items():
            count += 1
            if count > _MOST_NAMES or depth > _DEEPEST or len(prefix) + len(str(name)) > _LONGEST:
                raise UnreadableError("is damaged: its modules hold each other without end")
            if isinstance(value, Module):
                waiting.append((f"{prefix}{name}.", value, depth + 1))
            else:
                yield f"{prefix}{name}", value


def _without_prefix(tensors: dict[str, Any]) -> dict[str, Any]:
    for _ in range(_DEEPEST):
        first = {name.split(".", 1)[0] if "." in name else "" for name in tensors}
        if len(first) != 1 or not first <= _PREFIXES:
            break
        tensors = {name.split(".", 1)[1]: value for name, value in tensors.items()}
    return tensors


def _without_tensors(content: Any) -> str:
    if isinstance(content, dict) and ("optimizer" in content or "param_groups" in content):
        return "holds the state of an optimizer, but no weights"
    if isinstance(content, (StoredTensor, Tensor)):
        return "holds one tensor, not a state dict: tensors by name"
    if isinstance(content, dict):
        keys = ", ".join(shown(key) for key in list(content)[:5])
        return f"holds no tensors by name, only {keys}" if keys else "holds an empty dictionary, no tensors"
    return f"holds a {type(content).__name__}, not a state dict: tensors by name"
