"""What a pickle of torch may describe: tensors in storages, plain containers, and the modules of TorchScript."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any


class UnreadableError(ValueError):
    """A file of weights that can't be read. The text goes on after its name: "is damaged: ..."."""


def damaged(reason: str) -> UnreadableError:
    """Not a whole file, or one that no version of torch writes."""
    return UnreadableError(f"is damaged: {reason}")


def check_shape(name: str, shape: Sequence[int]) -> None:
    """UnreadableError unless torch can count in the shape: that of a tensor without elements no file bounds."""
    if len(shape) > _MOST_SIDES or prod(max(1, side) for side in shape) >= _MOST:
        raise damaged(f"the tensor {name[:60]} is of an impossible shape")


def foreign(name: str) -> UnreadableError:
    """The file wants an object that is neither a tensor nor a plain container."""
    return UnreadableError(
        f"holds more than tensors ({name[:80]}), and arbitrary objects are never unpickled; "
        "save its state dict as .safetensors"
    )


@dataclass(frozen=True)
class Storage:
    """A block of bytes that tensors lie in: `size` elements of torch's type `dtype` (uint8 if untyped)."""

    key: str
    dtype: str
    size: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a storage, as `torch.as_strided` counts; `dtype` is the name of torch's type."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class Module:
    """A module in a TorchScript archive."""

    attributes: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inert:
    """An object that is known to hold no weights, left unmade."""

    name: str


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names."""

    text: str


_MOST = 1 << 48  # elements, beyond which no tensor goes
_MOST_SIDES = 8
_MOST_ARGUMENTS = 16  # of what describes a tensor; one long tuple may be given to each of many
_STORAGES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "Untyped": "uint8",
}
_DTYPES = {*_STORAGES.values(), "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"}
_PLAIN = ("set", "frozenset", "complex", "bytearray")
# Things that training scripts leave beside the weights.
_INERT = (
    "argparse.Namespace",
    "collections.Counter",
    "collections.defaultdict",
    *(f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in _PLAIN),
    "_codecs.encode",
    "pathlib.",
    "datetime.",
    "types.SimpleNamespace",
    "numpy.",
    "omegaconf.",
    "torch.device",
    "torch.optim.",
)


def _tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_: Any, dtype: str | None = None) -> Any:
    if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > _MOST_SIDES:
        raise damaged("a tensor without a storage")
    for number in (offset, *shape, *strides):
        if type(number) is not int or not 0 <= number < _MOST:
            raise damaged("a tensor of an impossible shape")
    return StoredTensor(storage, dtype or storage.dtype, offset, tuple(shape), tuple(strides))


def _typed_tensor(storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Name) -> Any:
    kind = dtype.text.removeprefix("torch.")
    if kind not in _DTYPES:
        raise foreign(dtype.text)
    return _tensor(storage, offset, shape, strides, dtype=kind)


def _parameter(data: StoredTensor, *_: Any) -> StoredTensor:
    return data


def _subclass(rebuild: Name, _type: Any, arguments: tuple, *_: Any) -> Any:
    return _called(_TENSORS[rebuild.text], arguments)


def _called(make: Callable[..., Any], arguments: Any) -> Any:
    if len(arguments) > _MOST_ARGUMENTS:
        raise damaged("a tensor of too many settings")
    return make(*arguments)


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_MADE: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.Size": lambda sizes: sizes,
    "torch.jit._pickle.build_intlist": lambda items: items,
    "torch.jit._pickle.build_doublelist": lambda items: items,
    "torch.jit._pickle.build_boollist": lambda items: items,
    "torch.jit._pickle.build_tensorlist": lambda items: items,
    "torch.jit._pickle.restore_type_tag": lambda value, _type: value,
    "collections.OrderedDict": lambda: {},
}


def storage_of(kind: Any, named: Name, key: Any, _place: Any, size: Any, *views: Any) -> Storage:
    """A storage, from what torch's pickles keep of it.

    Raises:
        UnreadableError: it is none of torch's.
    """
    if kind != "storage" or not isinstance(key, str) or any(views) or type(size) is not int or not 0 <= size < _MOST:
        raise damaged("a storage of an unknown kind")
    dtype = _STORAGES.get(named.text.rpartition(".")[2].removesuffix("Storage"))
    if dtype is None:
        raise foreign(named.text)
    return Storage(key, dtype, size)


def made(called: Any, arguments: Any) -> Any:
    """What calling or instantiating `called` would give, for the names that are known; nothing is called.

    Raises:
        UnreadableError: the name is not known.
    """
    name = called.text if isinstance(called, Name) else type(called).__name__
    if name.startswith("__torch__."):
        return Module()
    if name in _MADE:
        return _called(_MADE[name], arguments)
    if name.startswith(_INERT) or isinstance(called, Inert):
        return Inert(name)
    raise foreign(name)
